// The socket to the gateway: what it tells, and coming back when it is lost.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10000;

export class Feed {
  constructor({ told, state }) {
    this.told = told;
    this.state = state;
    this.wait = FIRST_WAIT;
    this.socket = null;
    this.timer = null;
    this.wanted = false;
  }

  open() {
    this.wanted = true;
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/console/feed`);
    this.socket = socket;
    this.state("connecting");
    socket.onopen = () => {
      this.wait = FIRST_WAIT;
      this.state("open");
    };
    socket.onmessage = (message) => this.told(JSON.parse(message.data));
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      this.state(event.code === 4401 ? "signed-out" : "lost");
      if (!this.wanted || event.code === 4401) return;
      this.timer = setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(LONGEST_WAIT, this.wait * 2);
    };
  }

  close() {
    this.wanted = false;
    clearTimeout(this.timer);
    this.socket?.close();
    this.socket = null;
  }

  ask(request) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(request));
  }
}

export async function api(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.detail || `The gateway answered ${answer.status}`);
  return found;
}
