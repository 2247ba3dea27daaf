// Draws the lines of a conversation.

import { clock, h, keyed, many, ms, text } from "./dom.js";
import { words } from "./conversation.js";

const WHO = { user: "Caller", bot: "Agent", tool: "Tool" };
const REASONS = { user_spoke: "the caller spoke", continuation: "the caller went on", cancelled: "cancelled", ended: "the call ended" };
const LONGEST = 600;
const NEAR = 80;

export function drawTranscript(list, conversation) {
  const pinned = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
  keyed(list, conversation.lines, (line) => line.key, make, (node, line) => update(node, line, conversation));
  if (pinned) list.scrollTop = list.scrollHeight;
}

export function since(conversation, line) {
  return clock(line.at - (conversation.startedAt ?? line.at));
}

function make(line) {
  return h("li", {}, h("time", { class: "at" }), line.who === "note" ? null : h("span", { class: "who" }, WHO[line.who]), h("div", { class: "said" }));
}

function update(node, line, conversation) {
  const version = String(line.version);
  if (node.dataset.version === version) return;
  node.dataset.version = version;
  node.className = `line ${line.who} ${line.state ?? ""} ${line.bad ? "trouble" : ""}`;
  text(node.firstElementChild, since(conversation, line));
  node.lastElementChild.replaceChildren(...content(line));
}

function content(line) {
  if (line.who === "user") return user(line);
  if (line.who === "bot") return bot(line);
  if (line.who === "tool") return tool(line);
  return [h("span", { dir: "auto" }, line.text)];
}

const tag = (words, how = "") => h("span", { class: `tag ${how}` }, words);

function user(line) {
  const parts = [h("p", { dir: "auto" }, line.text || "…")];
  if (line.state === "interim") parts.push(tag("hearing"));
  else if (line.continued) parts.push(tag("went on"));
  else if (line.latency !== undefined) parts.push(tag(`turn end after ${ms(line.latency)}`));
  return parts;
}

function bot(line) {
  const spoken = words(line);
  if (line.state === "finished") return [h("p", { dir: "auto" }, line.text || spoken)];
  const rest = unspoken(line.text, line.words.filter(Boolean).length);
  const said = h("p", { dir: "auto" }, h("span", { class: "heard" }, spoken), rest && spoken ? " " : null,
    rest ? h(line.state === "interrupted" ? "s" : "span", { class: "rest" }, rest) : null);
  if (line.state === "speaking") return [said, tag("speaking")];
  return [said, tag(`cut off: ${REASONS[line.reason] ?? line.reason}; ${many(line.heard, "word")} heard`, "cut")];
}

function unspoken(whole, spoken) {
  return (whole ?? "").split(/\s+/).filter(Boolean).slice(spoken).join(" ");
}

function tool(line) {
  const parts = [h("code", { dir: "ltr" }, `${line.name}(${short(line.args)})`)];
  if (line.result === undefined) parts.push(tag("running"));
  else parts.push(h("code", { class: "result", dir: "ltr" }, short(line.result)), tag(ms(1000 * line.took)));
  return parts;
}

function short(value) {
  const whole = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return whole.length > LONGEST ? `${whole.slice(0, LONGEST)}…` : whole;
}
