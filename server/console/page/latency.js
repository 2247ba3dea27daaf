// The waterfall: where the time of each turn went, from the end of the caller's speech to the first sound of the answer.

import { h, keyed, ms } from "./dom.js";

// From one moment to the next; a moment that a turn does not have is passed over.
const STEPS = [
  ["final_text", "text", "words recognised"],
  ["decision", "turn", "turn judged over"],
  ["first_token", "model", "first word of the answer"],
  ["first_sentence", "sentence", "first sentence complete"],
  ["first_speech", "voice", "first audio from the voice"],
  ["first_sent", "queue", "sent to the line"],
  ["audible", "line", "heard by the caller"],
];
const SHOWN = 40;

export function segments(turn) {
  let before = 0;
  const found = [];
  for (const [moment, name, what] of STEPS) {
    const at = turn[moment];
    if (at === null || at === undefined || at < before) continue;
    found.push({ name, what, from: before, length: at - before });
    before = at;
  }
  return { parts: found, total: before };
}

export function drawWaterfall(box, turns) {
  const shown = turns.slice(-SHOWN).map((turn) => ({ turn, ...segments(turn) }));
  const longest = Math.max(1000, ...shown.map((one) => one.total));
  if (!box.firstElementChild) {
    box.append(
      h("ul", { class: "legend", "aria-hidden": "true" }, STEPS.map(([, name]) => h("li", { class: `seg-${name}` }, name))),
      h("ol", { class: "bars" }),
    );
  }
  const list = box.querySelector(".bars");
  keyed(list, shown, (one) => String(one.turn.turn_id), make, (node, one) => update(node, one, longest));
}

function make(one) {
  return h("li", { class: "turn" },
    h("span", { class: "turn-id" }, `#${one.turn.turn_id}`),
    h("span", { class: "track" }),
    h("span", { class: "turn-ms" }));
}

function update(node, { turn, parts, total }, longest) {
  const track = node.querySelector(".track");
  track.replaceChildren(...parts.map((part) => {
    const bar = h("span", { class: `seg seg-${part.name}`, title: `${part.what}: ${ms(part.from + part.length)} (+${ms(part.length)})` });
    bar.style.setProperty("width", `${(100 * part.length) / longest}%`);
    return bar;
  }));
  node.querySelector(".turn-ms").textContent = ms(total);
  const tools = turn.tool_rounds ? `, ${turn.tool_rounds} rounds of tools` : "";
  const told = parts.map((part) => `${part.what} after ${ms(part.from + part.length)}`).join(", ");
  node.setAttribute("aria-label", `Turn ${turn.turn_id}: answer heard after ${ms(total)}; ${told}${tools}`);
}
