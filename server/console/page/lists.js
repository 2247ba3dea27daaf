// The lists at the side: agents, telephones that ring, conversations.

import { ago, byId, clock, h, keyed, many, text } from "./dom.js";
import { ended } from "./explain.js";

export const WAYS = { phone: "Phone", webrtc: "Browser", chat: "Chat" };
const STATES = { requested: "asked of the carrier", dialing: "dialling", ringing: "ringing", answered: "picked up" };
const MANY = 8;

// Who is at the other end.
export function title(call) {
  if (call.direction === "outbound") return `to ${call.to}`;
  if (call.transport in WAYS && call.from === call.transport) return `${WAYS[call.transport]} visitor`;
  return call.from || "Unknown caller";
}

export class Lists {
  constructor({ look, talk, chat, hangUp, now }) {
    this.acts = { look, talk, chat, hangUp };
    this.now = now;
    this.calls = new Map();
    this.agents = [];
    this.looking = "";
    byId("search").addEventListener("input", () => this.draw());
  }

  // Conversations in the order they are listed: live ones first, the newest of each first.
  order() {
    const all = this.matching();
    return [...all.filter((call) => call.ended_at === null), ...all.filter((call) => call.ended_at !== null)];
  }

  matching() {
    const wanted = byId("search").value.trim().toLowerCase();
    const all = [...this.calls.values()].reverse();
    if (!wanted) return all;
    return all.filter((call) => `${title(call)} ${call.agent} ${call.from} ${call.to} ${call.call_id} ${call.transport}`.toLowerCase().includes(wanted));
  }

  draw() {
    const all = this.matching();
    byId("search-box").hidden = this.calls.size < MANY && !byId("search").value;
    this.list("live", all.filter((call) => call.ended_at === null));
    this.list("recent", all.filter((call) => call.ended_at !== null));
    const live = [...this.calls.values()].filter((call) => call.ended_at === null).length;
    document.title = live ? `(${live}) Voice gateway` : "Voice gateway";
  }

  list(id, calls) {
    text(byId(`${id}-count`), calls.length ? String(calls.length) : "");
    byId(`${id}-none`).hidden = calls.length > 0;
    keyed(byId(id), calls, (call) => call.call_id, (call) => this.make(call), (node, call) => this.update(node, call));
  }

  make(call) {
    return h("li", {}, h("button", { type: "button", class: "call", onclick: () => this.acts.look(call.call_id) },
      h("span", { class: "call-who", dir: "auto" }), h("span", { class: "call-time" }), h("span", { class: "call-facts" })));
  }

  update(node, call) {
    const button = node.firstElementChild;
    const current = call.call_id === this.looking;
    if (current !== button.hasAttribute("aria-current")) {
      if (current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    const [who, time, facts] = button.children;
    const live = call.ended_at === null;
    text(who, title(call));
    text(time, live ? clock(this.now() - (call.started_at || this.now())) : ago(this.now() - call.ended_at));
    text(facts, [
      WAYS[call.transport], call.agent, many(call.turns, "turn"),
      call.answer_ms === null ? "" : `${call.answer_ms} ms`,
      call.interruptions ? `${call.interruptions} cut off` : "",
      call.errors ? many(call.errors, "error") : "",
      live ? "" : ended(call.reason, call.call_id),
    ].filter(Boolean).join(" · "));
    facts.classList.toggle("bad", call.errors > 0);
  }

  ringing(calls) {
    byId("ringing-box").hidden = calls.length === 0;
    text(byId("ringing-count"), String(calls.length));
    keyed(byId("ringing"), calls, (call) => call.call_id,
      (call) => h("li", { class: "ring" },
        h("div", {}, h("span", { class: "call-who", dir: "auto" }), h("span", { class: "call-facts" })),
        h("button", { type: "button", class: "danger small", "aria-label": `Call off ${title(call)}`, onclick: () => this.acts.hangUp(call.call_id) }, "Call off")),
      (node, call) => {
        text(node.querySelector(".call-who"), title(call));
        text(node.querySelector(".call-facts"), `${call.agent} · ${STATES[call.state] ?? call.state}`);
      });
  }

  drawAgents() {
    text(byId("agents-count"), this.agents.length ? String(this.agents.length) : "");
    byId("agents-none").hidden = this.agents.length > 0;
    keyed(byId("agents"), this.agents, (agent) => agent.slug, (agent) => this.card(agent), (node, agent) => {
      node.classList.toggle("away", !agent.online);
      text(node.querySelector(".agent-name"), agent.name);
      text(node.querySelector(".agent-facts"), facts(agent));
      for (const button of node.querySelectorAll("button")) button.disabled = !agent.online;
    });
  }

  card(agent) {
    return h("li", { class: "agent" },
      h("h3", { class: "agent-name", dir: "auto" }),
      h("div", { class: "agent-act" },
        h("button", { type: "button", "aria-label": `Talk with ${agent.name}`, onclick: () => this.acts.talk(agent.slug) }, "Talk"),
        h("button", { type: "button", "aria-label": `Chat with ${agent.name}`, onclick: () => this.acts.chat(agent.slug) }, "Chat")),
      h("p", { class: "agent-facts" }));
  }
}

function facts(agent) {
  const ways = agent.channels.map((channel) => channel.ref || channel.type).join(", ");
  const live = agent.calls ? `${agent.calls} live` : "";
  return [agent.online ? "" : "away", live, ways, agent.model || "answers by its own program"].filter(Boolean).join(" · ");
}
