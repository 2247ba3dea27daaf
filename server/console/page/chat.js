// A text conversation with an agent, in the place of a call.

import { h, keyed, text } from "./dom.js";
import { api } from "./feed.js";

export class Chat {
  constructor(box) {
    this.box = box;
    this.socket = null;
    this.lines = [];
    this.waiting = false;
    this.serial = 0;
  }

  async open(agent) {
    this.close();
    this.agent = agent;
    this.lines = [];
    this.build(agent);
    this.status("connecting");
    try {
      const grant = await api("POST", "/console/token", { agent, channel: "chat" });
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      const socket = (this.socket = new WebSocket(`${scheme}://${location.host}/chat/ws?token=${encodeURIComponent(grant.token)}`));
      socket.onmessage = (message) => this.socket === socket && this.take(JSON.parse(message.data));
      socket.onclose = () => this.socket === socket && this.over();
    } catch (error) {
      this.status(error.message);
    }
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  build(agent) {
    this.list = h("ol", { class: "transcript chat", tabindex: "0", "aria-label": "Chat", "aria-live": "polite" });
    this.input = h("input", { id: "chat-text", type: "text", autocomplete: "off", placeholder: "Write to the agent", maxlength: "8000" });
    this.send = h("button", { class: "main", type: "submit" }, "Send");
    this.state = h("span", { class: "state", role: "status" });
    this.box.replaceChildren(
      h("header", { class: "call-head" }, h("div", {}, h("h2", {}, agent), h("p", { class: "facts" }, "text chat ", this.state))),
      this.list,
      h("form", { class: "composer", onsubmit: (event) => this.submit(event) },
        h("label", { class: "hidden", for: "chat-text" }, "Message"), this.input, this.send));
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
        this.status("connected");
        break;
      case "chat.token":
        this.put(`b${event.message_id}`, { who: "bot", text: event.text, state: "speaking" });
        break;
      case "chat.done":
        this.put(`b${event.message_id}`, { who: "bot", text: event.text, state: "finished" });
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
        this.put(`n${this.serial}`, { who: "note", text: event.error });
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

  over() {
    this.socket = null;
    this.wait(false);
    this.status("closed");
    this.input.disabled = this.send.disabled = true;
  }

  wait(waiting) {
    this.waiting = waiting;
    this.send.disabled = waiting;
  }

  status(said) {
    text(this.state, `· ${said}`);
  }

  draw() {
    keyed(this.list, this.lines.filter((line) => line.text || line.result), (line) => line.key,
      (line) => h("li", { class: `line ${line.who}` }, h("span", { class: "who" }, { user: "You", bot: "Agent", tool: "Tool" }[line.who] ?? ""), h("div", { class: "said" })),
      (node, line) => {
        const tag = line.who === "tool" ? "code" : "p";
        node.querySelector(".said").replaceChildren(h(tag, {}, line.text ?? ""), ...(line.result ? [h("code", { class: "result" }, line.result)] : []));
      });
    this.list.scrollTop = this.list.scrollHeight;
  }
}
