// What is on the stage while nothing is looked at: what to do next.

import { copier, h } from "./dom.js";

// What is there already stays, with whatever has the focus in it.
export function welcome(box, { agents, hello, talk, chat }) {
  const online = agents.find((agent) => agent.online);
  const shown = box.querySelector(".welcome");
  const about = online ? `${online.slug} ${online.name}` : "";
  if (shown?.dataset.about === about) return;
  const page = online ? ready(online, talk, chat) : nobody(hello);
  page.dataset.about = about;
  box.replaceChildren(page);
}

function ready(agent, talk, chat) {
  return h("div", { class: "welcome" },
    h("h2", {}, "Ready for calls"),
    h("p", {}, "Calls and chats appear here as they come. Start one yourself:"),
    h("div", { class: "welcome-act" },
      h("button", { class: "main", type: "button", onclick: () => talk(agent.slug) }, `Talk with ${agent.name}`),
      h("button", { type: "button", onclick: () => chat(agent.slug) }, "Chat")),
    h("p", { class: "hint" }, "Talking asks for your microphone; nobody else hears you."));
}

function nobody(hello) {
  const kept = hello?.key_kept ?? "";
  const key = kept ? `"$(cat ${kept})"` : "pk_…";
  const demo = `.venv/bin/python -m demo.agent --url ${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/client --key ${key}`;
  const sdk = [
    'import { Pinecall } from "@pinecall/sdk";',
    "",
    `const pc = new Pinecall({ apiKey: process.env.PINECALL_API_KEY, apiUrl: "${location.origin}" });`,
    "await pc.connect();",
    'const agent = pc.agent("mara", { language: "en" });',
    'agent.on("call.started", (call) => call.say("Hello! How can I help?"));',
    'agent.on("turn.end", (turn, call) => call.reply(`You said: ${turn.text}`));',
    'agent.on("user.message", (message, call) => {',
    '  if (call.transport === "chat") call.reply(`You wrote: ${message.text}`);',
    '});',
  ].join("\n");
  return h("div", { class: "welcome wide" },
    h("h2", {}, "No agent is connected"),
    h("p", {}, "An agent is a program of yours that connects to this gateway. It is listed here as soon as it does, and you can talk with it."),
    snippet("Try the demo agent, a restaurant that takes bookings", "the command", demo),
    snippet("Or write your own with the SDK", "the program", sdk),
    h("p", { class: "hint" }, kept
      ? `The API key is in ${kept} on the gateway's machine. It is never sent to this page.`
      : "Use an API key of your organisation. Keys are never sent to this page."));
}

function snippet(name, what, code) {
  return h("section", { class: "snippet" }, h("div", { class: "snippet-head" }, h("h3", {}, name), copier(what, () => code)),
    h("pre", { tabindex: "0", "aria-label": name }, code));
}
