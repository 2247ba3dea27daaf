// The console: signing in, the lists, and what is looked at.

import { ago, announce, byId, clock, h, keyed, text } from "./dom.js";
import { Chat } from "./chat.js";
import { Feed, api } from "./feed.js";
import { Stage } from "./stage.js";
import { Talk } from "./talk.js";

const THEMES = ["auto", "light", "dark"];

class Console {
  constructor() {
    this.agents = [];
    this.calls = new Map();
    this.skew = 0;
    this.looking = "";
    this.feed = new Feed({ told: (message) => this.told(message), state: (state) => this.link(state) });
    this.stage = new Stage(byId("stage"), { hangUp: (id) => this.feed.ask({ hang_up: id }), now: () => this.now() });
    this.chat = new Chat(byId("stage"));
    this.talk = new Talk(byId("talk"), { began: (id) => this.expect(id), ended: () => {} });
    this.expected = "";
  }

  now() {
    return Date.now() / 1000 + this.skew;
  }

  async begin() {
    this.wire();
    setInterval(() => this.tick(), 1000);
    const session = await api("GET", "/console/session").catch(() => ({ signed_in: false }));
    if (session.signed_in) this.enter();
    else this.leave();
  }

  enter() {
    byId("door").hidden = true;
    byId("floor").hidden = false;
    this.feed.open();
    this.drawWelcome();
  }

  leave() {
    this.feed.close();
    this.talk.active && this.talk.stop();
    this.chat.close();
    this.calls.clear();
    this.agents = [];
    byId("floor").hidden = true;
    byId("sign-out").hidden = true;
    byId("door").hidden = false;
    byId("key").focus();
  }

  // --- what the gateway tells ---

  told(message) {
    switch (message.kind) {
      case "hello":
        this.skew = message.now - Date.now() / 1000;
        byId("sign-out").hidden = false;
        byId("sign-out").title = `${message.org}, version ${message.version}`;
        break;
      case "agents":
        this.agents = message.agents;
        this.drawAgents();
        if (this.looking === "") this.drawWelcome();
        break;
      case "calls":
        this.calls = new Map(message.calls.map((call) => [call.call_id, call]));
        this.drawCalls();
        if (this.calls.has(this.looking)) this.feed.ask({ follow: this.looking });
        break;
      case "call":
        this.changed(message.call);
        break;
      case "health":
        this.drawHealth(message);
        break;
      default:
        this.stage[message.kind]?.(message);
    }
  }

  changed(call) {
    const fresh = !this.calls.has(call.call_id);
    this.calls.set(call.call_id, call);
    if (call.call_id === this.expected || (fresh && this.looking === "")) {
      this.expected = "";
      this.look(call.call_id);
    }
    if (call.call_id === this.looking) this.stage.update(call);
    this.drawCalls();
  }

  link(state) {
    document.body.dataset.link = state;
    if (state === "signed-out") this.leave();
    if (state === "lost") {
      announce("The connection to the gateway is lost; trying again");
      this.drawHealth(null);
    }
  }

  // --- looking at something ---

  look(callId) {
    const call = this.calls.get(callId);
    if (!call) return;
    this.chat.close();
    this.looking = callId;
    this.stage.show(call);
    this.feed.ask({ follow: callId });
    this.drawCalls();
    byId("floor").dataset.view = "call";
  }

  expect(callId) {
    if (this.calls.has(callId)) this.look(callId);
    else this.expected = callId;
  }

  step(by) {
    const order = this.order();
    const at = order.indexOf(this.looking);
    const next = order[at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by))];
    if (next) this.look(next);
  }

  order() {
    const all = [...this.calls.values()].reverse();
    return [...all.filter((call) => call.ended_at === null), ...all.filter((call) => call.ended_at !== null)].map((call) => call.call_id);
  }

  openChat(agent) {
    this.feed.ask({ follow: "" });
    this.looking = "chat";
    this.chat.open(agent);
    this.drawCalls();
    byId("floor").dataset.view = "call";
  }

  // --- drawing ---

  drawWelcome() {
    this.stage.welcome(this.agents, (agent) => this.talk.start(agent));
  }

  drawAgents() {
    text(byId("agents-count"), this.agents.length ? String(this.agents.length) : "");
    keyed(byId("agents"), this.agents, (agent) => agent.slug, (agent) => this.agentCard(agent), (node, agent) => {
      node.classList.toggle("away", !agent.online);
      text(node.querySelector(".agent-name"), agent.name);
      text(node.querySelector(".agent-facts"), facts(agent));
      for (const button of node.querySelectorAll("button")) button.disabled = !agent.online;
    });
  }

  agentCard(agent) {
    return h("article", { class: "agent" },
      h("div", {}, h("h3", { class: "agent-name" }), h("p", { class: "agent-facts" })),
      h("div", { class: "agent-act" },
        h("button", { type: "button", "aria-label": `Talk with ${agent.name}`, onclick: () => this.talk.start(agent.slug) }, "Talk"),
        h("button", { type: "button", "aria-label": `Chat with ${agent.name}`, onclick: () => this.openChat(agent.slug) }, "Chat")));
  }

  drawCalls() {
    const all = [...this.calls.values()].reverse();
    this.drawList("live", all.filter((call) => call.ended_at === null));
    this.drawList("recent", all.filter((call) => call.ended_at !== null));
  }

  drawList(id, calls) {
    text(byId(`${id}-count`), calls.length ? String(calls.length) : "");
    keyed(byId(id), calls, (call) => call.call_id,
      (call) => h("li", {}, h("button", { type: "button", class: "call", onclick: () => this.look(call.call_id) },
        h("span", { class: "call-who" }), h("span", { class: "call-time" }), h("span", { class: "call-facts" }))),
      (node, call) => this.drawCall(node, call));
  }

  drawCall(node, call) {
    const button = node.firstElementChild;
    if (call.call_id === this.looking) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const live = call.ended_at === null;
    text(node.querySelector(".call-who"), `${call.agent} · ${call.from || call.transport}`);
    text(node.querySelector(".call-time"), live ? clock(this.now() - (call.started_at || this.now())) : ago(this.now() - call.ended_at));
    const answer = call.answer_ms === null ? "" : ` · ${call.answer_ms} ms`;
    const cuts = call.interruptions ? ` · ${call.interruptions} cut` : "";
    const errors = call.errors ? ` · ${call.errors} errors` : "";
    text(node.querySelector(".call-facts"), `${call.transport || "…"} · ${call.turns} turns${answer}${cuts}${errors}${live ? "" : ` · ${call.reason}`}`);
  }

  drawHealth(health) {
    if (!health) {
      byId("health").replaceChildren(chip("gateway", "lost", "bad"));
      return;
    }
    const limit = health.max_calls ? ` / ${health.max_calls}` : "";
    byId("health").replaceChildren(
      chip("calls", `${health.calls}${limit}`, health.max_calls && health.calls >= health.max_calls ? "bad" : ""),
      chip("loop", `${health.loop_lag_ms} ms late`, health.loop_lag_ms > 50 ? "bad" : health.loop_lag_ms > 15 ? "warn" : ""),
      chip("cpu", `${Math.round(health.cpu_percent)} %`, health.cpu_percent > 85 ? "bad" : health.cpu_percent > 60 ? "warn" : ""),
      chip("memory", `${Math.round(health.memory_mb)} MB`, ""),
      chip(health.store, health.store_reachable ? "ok" : "unreachable", health.store_reachable ? "" : "bad"),
      chip("engines", health.engines.length ? health.engines.join(", ") : "built in", ""),
      chip("up", clock(health.uptime_seconds), ""));
  }

  tick() {
    this.stage.tick();
    for (const node of [...byId("live").children, ...byId("recent").children]) {
      const call = this.calls.get(node.dataset.key);
      if (call) this.drawCall(node, call);
    }
  }

  // --- what the visitor does ---

  wire() {
    const remembered = localStorage.getItem("theme");
    this.theme(THEMES.includes(remembered) ? remembered : "auto");
    byId("theme").addEventListener("click", () => this.theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
    byId("help").addEventListener("click", () => byId("keys").showModal());
    byId("sign-out").addEventListener("click", async () => {
      await api("DELETE", "/console/session").catch(() => ({}));
      this.leave();
    });
    byId("sign-in").addEventListener("submit", (event) => this.signIn(event));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  theme(name) {
    document.documentElement.dataset.theme = name;
    localStorage.setItem("theme", name);
    text(byId("theme"), `Theme: ${name}`);
  }

  async signIn(event) {
    event.preventDefault();
    const field = byId("key");
    try {
      await api("POST", "/console/session", { key: field.value.trim() });
      field.value = "";
      text(byId("sign-in-error"), "");
      this.enter();
    } catch (error) {
      text(byId("sign-in-error"), error.message);
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("floor").hidden || byId("keys").open) return;
    if (event.key === "Escape") {
      byId("floor").dataset.view = "list";
      event.target.blur?.();
      return;
    }
    if (/^(input|textarea|select)$/i.test(event.target.tagName)) return;
    const first = this.agents.find((agent) => agent.online)?.slug;
    const acts = {
      j: () => this.step(1),
      k: () => this.step(-1),
      l: () => this.look(this.order()[0] ?? ""),
      t: () => (this.talk.active ? this.talk.stop() : first && this.talk.start(first)),
      c: () => first && this.openChat(first),
      m: () => this.talk.mute(),
      "?": () => byId("keys").showModal(),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

function facts(agent) {
  const ways = agent.channels.map((channel) => (channel.ref === channel.type ? channel.type : channel.ref)).join(", ");
  return [agent.online ? null : "away", agent.model || "its own program thinks", ways].filter(Boolean).join(" · ");
}

function chip(name, value, how) {
  return h("span", { class: `chip ${how}` }, h("span", { class: "chip-name" }, name), h("span", {}, value));
}

new Console().begin();
