// Draws the lines of a conversation.

import { clock, h, keyed, ms, text } from "./dom.js";

const WHO = { user: "Caller", bot: "Agent", tool: "Tool", note: "" };
const REASONS = { user_spoke: "caller spoke", continuation: "caller went on", cancelled: "cancelled" };

export function drawTranscript(list, conversation) {
  const pinned = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  keyed(list, conversation.lines, (line) => line.key, make, (node, line) => update(node, line, conversation));
  if (pinned) list.scrollTop = list.scrollHeight;
}

function make(line) {
  return h("li", { class: `line ${line.who}` },
    h("time", { class: "at" }),
    line.who === "note" ? null : h("span", { class: "who" }, WHO[line.who]),
    h("div", { class: "said" }));
}

function update(node, line, conversation) {
  if (node.dataset.version === String(line.version)) return;
  node.dataset.version = line.version;
  node.className = `line ${line.who} ${line.state ?? ""} ${line.trouble ? "trouble" : ""}`;
  text(node.querySelector(".at"), clock(line.at - (conversation.startedAt ?? line.at)));
  node.querySelector(".said").replaceChildren(...content(line));
}

function content(line) {
  if (line.who === "user") return user(line);
  if (line.who === "bot") return bot(line);
  if (line.who === "tool") return tool(line);
  return [line.text];
}

function user(line) {
  const parts = [h("p", {}, line.text || "…")];
  if (line.state === "interim") parts.push(h("span", { class: "tag" }, "hearing"));
  else if (line.latency !== undefined) parts.push(h("span", { class: "tag" }, `turn end after ${ms(line.latency)}`));
  return parts;
}

function bot(line) {
  const words = line.words.filter(Boolean);
  const spoken = words.join(" ");
  if (line.state === "finished") return [h("p", {}, line.text || spoken)];
  const rest = unspoken(line.text, words.length);
  const said = h("p", {}, h("span", { class: "heard" }, spoken), rest ? ` ${spoken ? "" : ""}` : "",
    rest ? h(line.state === "interrupted" ? "s" : "span", { class: "rest" }, rest) : null);
  if (line.state === "speaking") return [said, h("span", { class: "tag" }, "speaking")];
  const why = REASONS[line.reason] ?? line.reason;
  return [said, h("span", { class: "tag cut" }, `interrupted: ${why}, ${line.heard} words heard`)];
}

function unspoken(whole, spoken) {
  return (whole ?? "").split(/\s+/).filter(Boolean).slice(spoken).join(" ");
}

function tool(line) {
  const parts = [h("code", {}, `${line.name}(${short(line.args)})`)];
  if (line.result !== undefined) parts.push(h("code", { class: "result" }, short(typeof line.result === "string" ? line.result : JSON.stringify(line.result))));
  return parts;
}

function short(value) {
  const whole = String(value ?? "");
  return whole.length > 400 ? `${whole.slice(0, 400)}…` : whole;
}
