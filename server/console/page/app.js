// The console: signing in, what the gateway tells, and what is looked at.

import { announce, byId, narrow, soon, text } from "./dom.js";
import { Chat } from "./chat.js";
import { Feed, api } from "./feed.js";
import { drawHealth } from "./health.js";
import { Lists } from "./lists.js";
import { Stage } from "./stage.js";
import { Talk } from "./talk.js";
import { welcome } from "./welcome.js";

const THEMES = ["auto", "light", "dark"];
const CHAT = "chat";

class Console {
  constructor() {
    this.looking = "";
    this.expected = "";
    this.skew = 0;
    this.hello = null;
    const hangUp = (id) => this.feed.ask({ hang_up: id });
    const now = () => Date.now() / 1000 + this.skew;
    this.feed = new Feed({ told: (message) => this.told(message), state: (state, wait) => this.link(state, wait) });
    this.stage = new Stage(byId("stage"), { hangUp, now, back: () => this.back() });
    this.chat = new Chat(byId("stage"), { back: () => this.back() });
    this.talk = new Talk(byId("talk"), { began: (id) => this.expect(id) });
    this.lists = new Lists({
      look: (id) => this.look(id), talk: (agent) => this.talk.start(agent), chat: (agent) => this.openChat(agent), hangUp, now,
    });
    this.draw = soon(() => this.lists.draw());
  }

  async begin() {
    this.wire();
    setInterval(() => this.tick(), 1000);
    const session = await api("GET", "/console/session").catch(() => null);
    if (session === null || session.signed_in) this.enter();
    else this.leave();
  }

  enter() {
    byId("door").hidden = true;
    byId("floor").hidden = false;
    this.feed.open();
  }

  leave() {
    this.feed.close();
    if (this.talk.active) this.talk.stop();
    this.chat.end();
    this.stage.leave();
    this.lists.calls.clear();
    this.lists.agents = [];
    this.looking = "";
    this.hello = null;
    byId("lost").hidden = true;
    byId("health").replaceChildren();
    byId("floor").hidden = true;
    byId("sign-out").hidden = true;
    byId("door").hidden = false;
    byId("key").focus();
  }

  // --- what the gateway tells ---

  told(message) {
    switch (message.kind) {
      case "hello":
        this.hello = message;
        this.skew = message.now - Date.now() / 1000;
        byId("sign-out").hidden = message.open;
        byId("sign-out").title = `Signed in to ${message.org}`;
        break;
      case "agents":
        this.lists.agents = message.agents;
        this.lists.drawAgents();
        if (this.looking === "") this.welcome();
        break;
      case "calls":
        this.all(message.calls);
        break;
      case "call":
        this.changed(message.call);
        break;
      case "ringing":
        this.lists.ringing(message.calls);
        break;
      case "health":
        drawHealth(byId("health"), message);
        break;
      default:
        this.stage[message.kind]?.(message);
    }
  }

  all(calls) {
    this.lists.calls = new Map(calls.map((call) => [call.call_id, call]));
    const wanted = this.looking || location.hash.slice(1);
    const call = this.lists.calls.get(wanted);
    if (call && this.looking === wanted) {
      this.stage.update(call);
      this.feed.ask({ follow: wanted });
    } else if (call) {
      this.look(wanted);
    } else if (this.stage.callId) {
      this.back();
    }
    this.draw();
  }

  changed(call) {
    const known = this.lists.calls.get(call.call_id);
    this.lists.calls.set(call.call_id, call);
    const first = !known && this.looking === "" && !narrow();
    if (call.call_id === this.expected || first) this.look(call.call_id);
    else if (call.call_id === this.stage.callId) this.stage.update(call);
    this.draw();
  }

  link(state, wait) {
    byId("lost").hidden = state !== "lost";
    if (state === "signed-out") this.leave();
    if (state === "lost") {
      text(byId("lost-text"), `The connection to the gateway is lost. Trying again in ${Math.max(1, Math.round(wait / 1000))} s.`);
      drawHealth(byId("health"), null);
    }
  }

  // --- looking at something ---

  look(callId) {
    const call = this.lists.calls.get(callId);
    if (!call) return;
    if (callId === this.expected) this.expected = "";
    if (callId === this.chat.callId) {
      this.showChat();
      return;
    }
    this.looking = callId;
    this.stage.show(call);
    this.feed.ask({ follow: callId });
    this.shown(callId);
  }

  expect(callId) {
    if (this.lists.calls.has(callId)) this.look(callId);
    else this.expected = callId;
  }

  openChat(agent) {
    this.chat.open(agent);
    this.showChat();
  }

  showChat() {
    this.feed.ask({ follow: "" });
    this.stage.leave();
    this.looking = CHAT;
    this.chat.show();
    this.shown(this.chat.callId);
    this.chat.input.focus();
  }

  // The address names what is looked at; on a small screen the list gives way to it, and the browser's "back" brings it back.
  shown(callId) {
    const address = callId ? `#${callId}` : location.pathname;
    const entered = narrow() && byId("floor").dataset.view === "list";
    if (entered) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    this.lists.looking = callId || CHAT;
    this.lists.draw();
    byId("floor").dataset.view = "call";
    document.body.dataset.view = "call";
    if (entered && this.looking !== CHAT) byId("stage").querySelector("h2")?.focus();
  }

  back() {
    const before = this.lists.looking;
    byId("floor").dataset.view = "list";
    document.body.dataset.view = "list";
    history.replaceState(null, "", location.pathname);
    if (narrow() || !this.lists.calls.has(before)) {
      this.feed.ask({ follow: "" });
      this.looking = this.lists.looking = "";
      this.stage.leave();
      this.welcome();
      this.lists.draw();
    }
    this.button(before)?.focus();
  }

  step(by) {
    const order = this.lists.order().map((call) => call.call_id);
    const at = order.indexOf(this.lists.looking);
    const next = order[at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by))];
    if (!next) return;
    this.look(next);
    if (!narrow()) this.button(next)?.focus();
  }

  button(callId) {
    return byId("side").querySelector(`li[data-key="${CSS.escape(callId)}"] .call`);
  }

  welcome() {
    welcome(byId("stage"), {
      agents: this.lists.agents, hello: this.hello,
      talk: (agent) => this.talk.start(agent), chat: (agent) => this.openChat(agent),
    });
  }

  tick() {
    this.stage.tick();
    if (!byId("floor").hidden) this.lists.draw();
  }

  // --- what the visitor does ---

  wire() {
    const remembered = remember("theme");
    this.theme(THEMES.includes(remembered) ? remembered : "auto");
    byId("theme").addEventListener("click", () => this.theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
    byId("help").addEventListener("click", () => byId("keys").showModal());
    byId("retry").addEventListener("click", () => this.feed.open());
    byId("sign-out").addEventListener("click", async () => {
      await api("DELETE", "/console/session").catch(() => ({}));
      this.leave();
    });
    byId("sign-in").addEventListener("submit", (event) => this.signIn(event));
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("popstate", () => {
      const call = location.hash.slice(1);
      if (call && call !== this.lists.looking) this.look(call);
      else if (!call && byId("floor").dataset.view === "call") this.back();
    });
  }

  theme(name) {
    document.documentElement.dataset.theme = name;
    remember("theme", name);
    text(byId("theme"), `Theme: ${name}`);
  }

  async signIn(event) {
    event.preventDefault();
    const field = byId("key");
    const button = event.target.querySelector("button");
    button.disabled = true;
    text(byId("sign-in-error"), "");
    try {
      await api("POST", "/console/session", { key: field.value.trim() });
      field.value = "";
      this.enter();
      byId("side").querySelector("button")?.focus();
      announce("Signed in");
    } catch (error) {
      text(byId("sign-in-error"), error.message);
      field.select();
    } finally {
      button.disabled = false;
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("floor").hidden || byId("keys").open) return;
    if (event.key === "Escape") {
      if (event.target.id === "search") {
        event.target.value = "";
        this.lists.draw();
      }
      event.target.blur?.();
      this.back();
      return;
    }
    if (/^(input|textarea|select)$/i.test(event.target.tagName)) return;
    const first = this.lists.agents.find((agent) => agent.online)?.slug;
    const acts = {
      j: () => this.step(1),
      k: () => this.step(-1),
      l: () => this.look(this.lists.order()[0]?.call_id ?? ""),
      t: () => (this.talk.active ? this.talk.stop() : first && this.talk.start(first)),
      c: () => first && this.openChat(first),
      m: () => this.talk.mute(),
      "/": () => byId("search").focus(),
      "?": () => byId("keys").showModal(),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

// Browsers that store nothing may even refuse to be asked.
function remember(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch {
    return null;
  }
  return value;
}

new Console().begin();
