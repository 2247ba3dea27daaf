// The call that is looked at: who, how loud, what was said, how fast.

import { clock, h, text } from "./dom.js";
import { Conversation } from "./conversation.js";
import { drawTranscript } from "./transcript.js";
import { drawWaterfall } from "./latency.js";

const FLOOR_DB = -60;

export class Stage {
  constructor(box, { hangUp, now }) {
    this.box = box;
    this.hangUp = hangUp;
    this.now = now;
    this.summary = null;
    this.conversation = null;
    this.parts = null;
    this.pending = false;
  }

  get callId() {
    return this.summary?.call_id ?? "";
  }

  welcome(agents, talk) {
    this.summary = this.conversation = this.parts = null;
    const online = agents.find((agent) => agent.online);
    this.box.replaceChildren(h("div", { class: "welcome" },
      h("h2", {}, online ? "Nobody is calling" : "No agent is connected"),
      h("p", {}, online
        ? "Calls appear here as they come. You can be the first to call."
        : "An agent's program connects with the SDK to this address. As soon as it does, it is listed here."),
      online
        ? h("button", { class: "main", type: "button", onclick: () => talk(online.slug) }, `Talk with ${online.name}`)
        : h("pre", {}, `new Pinecall({ apiKey: "pk_…", apiUrl: "${location.origin}" })`)));
  }

  show(summary) {
    this.summary = summary;
    this.conversation = new Conversation();
    const hang = h("button", { class: "danger", type: "button", onclick: () => this.hangUp(this.callId) }, "Hang up");
    this.parts = {
      title: h("h2", {}), facts: h("p", { class: "facts" }), time: h("span", { class: "time" }), hang,
      user: meter("Caller"), bot: meter("Agent"),
      list: h("ol", { class: "transcript", tabindex: "0", "aria-label": "Transcript" }),
      fall: h("div", { class: "fall" }),
      none: h("p", { class: "hint" }, "Each answered turn is drawn here: from the end of the caller's words to the first sound of the answer."),
    };
    const p = this.parts;
    this.box.replaceChildren(
      h("header", { class: "call-head" }, h("div", {}, p.title, p.facts), h("div", { class: "call-act" }, p.time, hang)),
      h("div", { class: "meters" }, p.user.node, p.bot.node),
      p.list,
      h("section", { class: "latency", "aria-label": "Latency of each turn" }, h("h3", {}, "Turns"), p.none, p.fall));
    this.update(summary);
  }

  update(summary) {
    this.summary = summary;
    const p = this.parts;
    if (!p) return;
    text(p.title, summary.agent);
    text(p.facts, `${summary.from || "unknown"} → ${summary.to || summary.agent} · ${summary.direction || "…"} · ${summary.transport || "…"}`);
    p.hang.hidden = summary.ended_at !== null;
    this.tick();
  }

  tick() {
    const { summary, parts } = this;
    if (!parts || !summary.started_at) return;
    const length = (summary.ended_at ?? this.now()) - summary.started_at;
    text(parts.time, summary.ended_at === null ? clock(length) : `${clock(length)} · ${summary.reason}`);
  }

  transcript(message) {
    if (message.call_id !== this.callId) return;
    this.conversation = new Conversation();
    for (const event of message.events) this.conversation.take(event);
    this.conversation.turns = [...message.turns];
    this.parts.list.replaceChildren();
    this.draw();
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

  // Many events come at once; they are drawn together.
  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      if (!this.parts || !this.conversation) return;
      drawTranscript(this.parts.list, this.conversation);
      text(this.parts.user.state, this.conversation.ended ? "" : this.conversation.user);
      text(this.parts.bot.state, this.conversation.ended ? "" : this.conversation.bot);
      this.parts.none.hidden = this.conversation.turns.length > 0;
      if (this.conversation.turns.length) drawWaterfall(this.parts.fall, this.conversation.turns);
      if (this.conversation.ended) {
        for (const side of ["user", "bot"]) this.parts[side].fill.style.setProperty("transform", "scaleX(0)");
      }
    });
  }
}

function meter(name) {
  const fill = h("span", { class: "fill" });
  const state = h("span", { class: "state" });
  const node = h("div", { class: "meter" }, h("span", { class: "name" }, name), h("span", { class: "rail", "aria-hidden": "true" }, fill), state);
  return { node, fill, state };
}
