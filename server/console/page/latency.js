// The waterfall: where the time of each turn went, from the end of the caller's speech to the first sound of the answer.

import { h, keyed, many, ms, narrow, text } from "./dom.js";

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
const SHOWN = 60;

export function segments(turn) {
  let before = 0;
  const parts = [];
  for (const [moment, name, what] of STEPS) {
    const at = turn[moment];
    if (at === null || at === undefined || at < before) continue;
    parts.push({ name, what, at, length: at - before });
    before = at;
  }
  return { turn, parts, total: before };
}

export class Waterfall {
  constructor() {
    this.stats = h("span", { class: "stats" });
    this.bars = h("ol", { class: "bars", "aria-label": "Turns, newest first" });
    this.detail = h("p", { class: "detail" });
    this.none = h("p", { class: "hint" }, "Each answered turn is drawn here, from the end of the caller's words to the first sound of the answer.");
    const legend = h("ul", { class: "legend", "aria-hidden": "true" }, STEPS.map(([, name]) => h("li", { class: `seg-${name}` }, name)));
    this.body = h("div", { class: "fall" }, legend, this.bars, this.detail);
    this.node = h("details", { class: "latency", open: !narrow() },
      h("summary", {}, h("h3", {}, "Answer times"), this.stats), this.none, this.body);
    this.chosen = null;
    this.rows = [];
    this.bars.addEventListener("keydown", (event) => this.key(event));
  }

  draw(turns) {
    this.none.hidden = turns.length > 0;
    this.body.hidden = turns.length === 0;
    text(this.stats, summary(turns));
    this.rows = turns.slice(-SHOWN).map(segments).reverse();
    const longest = Math.max(1000, ...this.rows.map((row) => row.total));
    keyed(this.bars, this.rows, (row) => String(row.turn.turn_id), (row) => this.make(row), (node, row) => update(node, row, longest));
    if (!this.rows.some((row) => row.turn.turn_id === this.chosen)) this.chosen = null;
    this.explain();
  }

  make(row) {
    const id = row.turn.turn_id;
    const button = h("button", { type: "button", class: "turn", tabindex: "-1" },
      h("span", { class: "turn-id" }, `#${id}`), h("span", { class: "track" }), h("span", { class: "turn-ms" }));
    for (const kind of ["focus", "mouseenter", "click"]) button.addEventListener(kind, () => this.choose(id));
    return h("li", {}, button);
  }

  choose(id) {
    this.chosen = id;
    this.explain();
  }

  // One stop of the Tab key for all; arrows go from turn to turn.
  explain() {
    const at = Math.max(0, this.rows.findIndex((row) => row.turn.turn_id === this.chosen));
    const buttons = this.bars.querySelectorAll(".turn");
    buttons.forEach((button, index) => {
      button.tabIndex = index === at ? 0 : -1;
      button.classList.toggle("chosen", index === at);
    });
    const row = this.rows[at];
    if (row) this.detail.replaceChildren(...told(row));
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.bars.querySelectorAll(".turn")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
  }
}

function update(node, { turn, parts, total }, longest) {
  const button = node.firstElementChild;
  const drawn = `${longest} ${total}`;
  if (button.dataset.drawn === drawn) return;
  button.dataset.drawn = drawn;
  button.querySelector(".track").replaceChildren(...parts.map((part) => {
    const bar = h("span", { class: `seg seg-${part.name}`, title: `${part.what}: at ${ms(part.at)} (+${ms(part.length)})` });
    bar.style.setProperty("width", `${(100 * part.length) / longest}%`);
    return bar;
  }));
  text(button.querySelector(".turn-ms"), ms(total));
  button.setAttribute("aria-label", `Turn ${turn.turn_id}: ${ms(total)}. ${parts.map((part) => `${part.what} at ${ms(part.at)}`).join(", ")}`);
}

function told({ turn, parts }) {
  const asked = turn.asked === null || turn.asked === undefined ? [] : [`model asked at ${ms(turn.asked)}`];
  const tools = turn.tool_rounds ? [many(turn.tool_rounds, "round of tools", "rounds of tools")] : [];
  return [
    h("strong", {}, `#${turn.turn_id} `),
    ...parts.map((part) => h("span", { class: `step seg-${part.name}` }, `${part.what} +${ms(part.length)}`)),
    ...[...asked, ...tools].map((more) => h("span", { class: "step plain" }, more)),
  ];
}

function summary(turns) {
  if (!turns.length) return "";
  const totals = turns.map((turn) => segments(turn).total).sort((a, b) => a - b);
  const average = totals.reduce((sum, one) => sum + one, 0) / totals.length;
  const middle = totals[Math.floor((totals.length - 1) / 2)];
  return `${many(totals.length, "turn")} · average ${ms(average)} · p50 ${ms(middle)} · slowest ${ms(totals.at(-1))}`;
}
