// A text conversation with an agent. It goes on while something else is looked at, until it is ended.

import { announce, h, keyed, soon, text } from "./dom.js";
import { api, socketAddress } from "./feed.js";
import { backButton } from "./stage.js";

const WHO = { user: "You", bot: "Agent", tool: "Tool" };

export class Chat {
  constructor(box, { back }) {
    this.box = box;
    this.back = back;
    this.socket = null;
    this.callId = "";
    this.parts = [];
    this.draw = soon(() => this.drawNow());
  }

  async open(agent) {
    if (this.agent === agent && this.socket) return;
    this.end();
    this.agent = agent;
    this.lines = [];
    this.serial = 0;
    this.waiting = false;
    this.build(agent);
    this.status("connecting");
    try {
      const grant = await api("POST", "/console/token", { agent, channel: "chat" });
      if (this.agent !== agent) return;
      const socket = (this.socket = new WebSocket(socketAddress(`/chat/ws?token=${encodeURIComponent(grant.token)}`)));
      socket.onmessage = (message) => this.socket === socket && this.take(JSON.parse(message.data));
      socket.onclose = () => this.socket === socket && this.over("the conversation is over");
    } catch (error) {
      this.over(error.message);
    }
  }

  end() {
    const socket = this.socket;
    this.socket = null;
    this.agent = null;
    this.callId = "";
    socket?.close();
  }

  // Put it on the stage.
  show() {
    this.box.replaceChildren(...this.parts);
    this.list.scrollTop = this.list.scrollHeight;
  }

  build(agent) {
    this.list = h("ol", { class: "transcript chat", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Chat" });
    this.input = h("input", { id: "chat-text", type: "text", dir: "auto", autocomplete: "off", placeholder: "Write to the agent", maxlength: "8000" });
    this.send = h("button", { class: "main", type: "submit" }, "Send");
    this.state = h("span", { role: "status" });
    this.ender = h("button", { type: "button", onclick: () => this.over("ended by you") }, "End chat");
    this.again = h("button", { type: "button", hidden: true, onclick: () => this.restart() }, "Chat again");
    this.parts = [
      h("header", { class: "call-head" }, backButton(this.back),
        h("div", { class: "call-title" }, h("h2", { dir: "auto" }, agent), h("p", { class: "facts" }, "Chat · ", this.state)),
        h("div", { class: "call-act" }, this.again, this.ender)),
      this.list,
      h("form", { class: "composer", onsubmit: (event) => this.submit(event) },
        h("label", { class: "hidden", for: "chat-text" }, "Message"), this.input, this.send),
    ];
  }

  restart() {
    const agent = this.title;
    this.open(agent);
    this.show();
    this.input.focus();
  }

  submit(event) {
    event.preventDefault();
    const said = this.input.value.trim();
    if (!said || this.waiting || this.socket?.readyState !== WebSocket.OPEN) return;
    this.input.value = "";
    this.serial += 1;
    this.lines.push({ key: `u${this.serial}`, who: "user", text: said });
    this.wait(true);
    this.socket.send(JSON.stringify({ event: "message", text: said }));
    this.draw();
  }

  take(event) {
    switch (event.event) {
      case "chat.connected":
        this.callId = event.session_id;
        this.status("connected");
        break;
      case "chat.token":
        this.put(`b${event.message_id}`, { who: "bot", text: event.text });
        break;
      case "chat.done":
        this.put(`b${event.message_id}`, { who: "bot", text: event.text });
        announce(`Agent: ${event.text}`);
        this.wait(false);
        break;
      case "chat.tool_call":
        for (const call of event.tool_calls) this.put(`t${call.id}`, { who: "tool", text: `${call.name}(${call.arguments ?? ""})` });
        break;
      case "chat.tool_result":
        this.put(`t${event.tool_call_id}`, { result: typeof event.result === "string" ? event.result : JSON.stringify(event.result) });
        break;
      case "chat.error":
      case "error":
        this.serial += 1;
        this.put(`n${this.serial}`, { who: "note", text: event.error, bad: true });
        announce(event.error);
        this.wait(false);
        break;
    }
    this.draw();
  }

  put(key, fields) {
    let line = this.lines.find((one) => one.key === key);
    if (!line) this.lines.push((line = { key }));
    Object.assign(line, fields);
  }

  over(why) {
    this.title = this.agent ?? this.title;
    this.end();
    this.wait(false);
    this.status(why);
    this.input.disabled = this.send.disabled = true;
    this.ender.hidden = true;
    this.again.hidden = false;
  }

  wait(waiting) {
    this.waiting = waiting;
    this.send.disabled = waiting;
    this.list.classList.toggle("waiting", waiting);
  }

  status(said) {
    text(this.state, said);
  }

  drawNow() {
    const pinned = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 80;
    keyed(this.list, this.lines.filter((line) => line.text || line.result), (line) => line.key,
      (line) => h("li", { class: `line ${line.who} ${line.bad ? "trouble" : ""}` },
        line.who === "note" ? null : h("span", { class: "who" }, WHO[line.who]), h("div", { class: "said" })),
      (node, line) => {
        const shown = `${line.text}${line.result ?? ""}`;
        if (node.shown === shown) return;
        node.shown = shown;
        node.lastElementChild.replaceChildren(
          h(line.who === "tool" ? "code" : "p", { dir: line.who === "tool" ? "ltr" : "auto" }, line.text ?? ""),
          ...(line.result ? [h("code", { class: "result", dir: "ltr" }, line.result)] : []));
      });
    if (pinned) this.list.scrollTop = this.list.scrollHeight;
  }
}
