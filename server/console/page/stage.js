// The conversation that is looked at: who, how loud, what was said, how fast.

import { clock, copier, h, soon, text } from "./dom.js";
import { Conversation } from "./conversation.js";
import { ended } from "./explain.js";
import { Waterfall } from "./latency.js";
import { drawTranscript, since } from "./transcript.js";
import { title, WAYS } from "./lists.js";

const FLOOR_DB = -60;
const SURE_MS = 3000;

export class Stage {
  constructor(box, { hangUp, now, back }) {
    this.box = box;
    this.hangUp = hangUp;
    this.now = now;
    this.back = back;
    this.summary = null;
    this.conversation = null;
    this.parts = null;
    this.draw = soon(() => this.drawNow());
  }

  get callId() {
    return this.summary?.call_id ?? "";
  }

  // Something else is on the stage.
  leave() {
    this.summary = this.conversation = this.parts = null;
  }

  show(summary) {
    this.summary = summary;
    this.conversation = new Conversation();
    const p = (this.parts = {
      title: h("h2", { tabindex: "-1", dir: "auto" }), facts: h("p", { class: "facts" }), time: h("span", { class: "time" }),
      hang: sure("Hang up", () => this.hangUp(this.callId)),
      user: meter("Caller"), bot: meter("Agent"),
      list: h("ol", { class: "transcript", tabindex: "0", "aria-label": "Transcript" }),
      early: h("p", { class: "hint early", hidden: true }, "This conversation is so long that its beginning is no longer kept."),
      more: h("dl", { class: "more" }),
      fall: new Waterfall(),
    });
    const copy = copier("the transcript", () => this.conversation.plain((line) => since(this.conversation, line)));
    const details = h("details", { class: "details" }, h("summary", {}, "Details"), p.more);
    this.meters = h("div", { class: "meters" }, p.user.node, p.bot.node);
    this.box.replaceChildren(
      h("header", { class: "call-head" },
        backButton(this.back),
        h("div", { class: "call-title" }, p.title, p.facts),
        h("div", { class: "call-act" }, p.time, copy, p.hang)),
      details, this.meters, p.early, p.list, p.fall.node);
    this.update(summary);
  }

  update(summary) {
    this.summary = summary;
    const p = this.parts;
    if (!p) return;
    const chat = summary.transport === "chat";
    text(p.title, title(summary));
    text(p.facts, [WAYS[summary.transport] ?? "Connecting", summary.agent, summary.direction].filter(Boolean).join(" · "));
    p.hang.hidden = summary.ended_at !== null;
    p.hang.firstChild.data = chat ? "End chat" : "Hang up";
    this.meters.hidden = chat || summary.ended_at !== null;
    p.fall.node.hidden = chat;
    this.facts();
    this.tick();
  }

  facts() {
    const { summary, conversation, parts } = this;
    const metadata = Object.keys(conversation.metadata).length ? JSON.stringify(conversation.metadata, null, 1) : "none";
    const rows = { "Call id": summary.call_id, Agent: summary.agent, From: summary.from, To: summary.to, Language: conversation.language, Metadata: metadata };
    const shown = JSON.stringify(rows);
    if (parts.more.dataset.shown === shown) return;
    parts.more.dataset.shown = shown;
    parts.more.replaceChildren(...Object.entries(rows).filter(([, value]) => value).map(([name, value]) =>
      h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value, name === "Call id" ? copier("the call id", () => value) : null))));
  }

  tick() {
    const { summary, parts } = this;
    if (!parts || !summary.started_at) return;
    const length = (summary.ended_at ?? this.now()) - summary.started_at;
    text(parts.time, summary.ended_at === null ? clock(length) : `${clock(length)} · ${ended(summary.reason, summary.call_id)}`);
  }

  transcript(message) {
    if (message.call_id !== this.callId) return;
    const conversation = (this.conversation = new Conversation());
    conversation.startedAt = this.summary.started_at || null;
    for (const event of message.events) conversation.take(event);
    conversation.turns = [...message.turns];
    this.parts.early.hidden = !message.shortened;
    this.parts.list.replaceChildren();
    this.drawNow();
    this.parts.list.scrollTop = this.parts.list.scrollHeight;
  }

  event(message) {
    if (message.call_id !== this.callId || !this.conversation) return;
    this.conversation.take(message.event);
    this.draw();
  }

  turn(message) {
    if (message.call_id !== this.callId || !this.conversation) return;
    this.conversation.turns.push(message.turn);
    this.draw();
  }

  level(message) {
    if (message.call_id !== this.callId || !this.parts) return;
    const shown = Math.max(0, (message.db - FLOOR_DB) / -FLOOR_DB);
    const { fill, node } = this.parts[message.source];
    fill.style.setProperty("transform", `scaleX(${shown.toFixed(3)})`);
    node.classList.toggle("loud", message.speech);
  }

  drawNow() {
    const { conversation, parts } = this;
    if (!parts || !conversation) return;
    drawTranscript(parts.list, conversation);
    text(parts.user.state, conversation.user);
    text(parts.bot.state, conversation.bot);
    parts.fall.draw(conversation.turns);
    this.facts();
  }
}

export function backButton(back) {
  return h("button", { type: "button", class: "back quiet", "aria-label": "Back to the list", onclick: back }, "← Back");
}

// Somebody else's call is not ended by a slip of the finger. The button's first text is its name, the second a question.
function sure(name, act) {
  const question = document.createTextNode("");
  const button = h("button", { type: "button", class: "danger" }, document.createTextNode(name), question);
  let timer = null;
  const calm = () => {
    clearTimeout(timer);
    timer = null;
    question.data = "";
    button.classList.remove("asked");
  };
  button.addEventListener("click", () => {
    if (timer !== null) {
      calm();
      act();
      return;
    }
    question.data = ": sure?";
    button.classList.add("asked");
    timer = setTimeout(calm, SURE_MS);
  });
  return button;
}

function meter(name) {
  const fill = h("span", { class: "fill" });
  const state = h("span", { class: "state" });
  const node = h("div", { class: "meter" }, h("span", { class: "name" }, name), h("span", { class: "rail", "aria-hidden": "true" }, fill), state);
  return { node, fill, state };
}
