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
    const socket = new WebSocket(socketAddress("/console/feed"));
    this.socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.wait = FIRST_WAIT;
      this.state("open");
    };
    socket.onmessage = (message) => this.socket === socket && this.told(JSON.parse(message.data));
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (!this.wanted) return;
      if (event.code === 4401) this.state("signed-out");
      else this.again(opened);
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

  // A browser does not say why a socket did not open: perhaps nobody knows this visitor any more.
  async again(opened) {
    const session = opened ? null : await api("GET", "/console/session").catch(() => null);
    if (!this.wanted || this.socket) return;
    if (session && !session.signed_in) {
      this.state("signed-out");
      return;
    }
    this.state("lost", this.wait);
    this.timer = setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(LONGEST_WAIT, this.wait * 2);
  }
}

export function socketAddress(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

export async function api(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The gateway cannot be reached");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.detail || `The gateway answered ${answer.status}`);
  return found;
}
