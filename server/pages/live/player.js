// The player of one live call. Sound comes by websocket as 16-bit samples, 50 ms a frame (docs/live.md); the key stays
// in the address, where it came from.
"use strict";

(() => {
  const assets = new URL(".", document.currentScript.src);
  const main = document.querySelector("main");
  const find = (id) => document.getElementById(id);
  const button = find("listen");
  const BARS = 40;
  const FLOOR_DB = -55;
  const RETRIES_MS = [500, 1000, 2000, 4000, 8000];
  const STATES = {
    connecting: { status: "Connecting …", label: "Listen", enabled: false },
    ready: { status: "Live", label: "Listen", enabled: true },
    listening: { status: "Listening", label: "Stop listening", enabled: true },
    reconnecting: { status: "Reconnecting …", label: "Listen", enabled: false },
    broken: { status: "Not connected", label: "Try again", enabled: true, note: "The connection was lost and could not be made again." },
    refused: { status: "Not available", label: "Listen", enabled: false, note: "This link is no longer valid." },
    ended: { status: "Ended", label: "The call has ended", enabled: false, note: "There is nothing more to hear." },
  };

  let state = "connecting";
  let socket = null;
  let rate = 0;
  let speaker = null;
  let wanted = false; // the person asked to listen; outlives a connection
  let retries = 0;
  let joined = 0;
  let bars = [];

  // --- what the page shows ---

  function show(next) {
    state = next;
    const look = STATES[next];
    main.dataset.state = next;
    find("status").textContent = look.status;
    find("label").textContent = look.label;
    button.disabled = !look.enabled;
    if (look.note) find("note").textContent = look.note;
    document.title = `${look.status} – Live call`;
  }

  function showElapsed() {
    if (!joined || state === "ended") return;
    const all = Math.floor((performance.now() - joined) / 1000);
    const [hours, minutes, seconds] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
    const two = (number) => String(number).padStart(2, "0");
    const time = find("elapsed");
    time.textContent = hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
    time.dateTime = `PT${all}S`;
  }

  function showLevel(samples) {
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    const db = samples.length && sum ? 10 * Math.log10(sum / samples.length) : FLOOR_DB;
    const level = Math.min(1, Math.max(0, (db - FLOOR_DB) / -FLOOR_DB * 1.25));
    bars.push(level);
    if (bars.length > BARS) bars.shift();
  }

  function draw() {
    const nodes = find("bars").children;
    for (let i = 0; i < BARS; i++) {
      const level = bars[bars.length - BARS + i] || 0;
      nodes[i].style.transform = `scaleY(${Math.max(0.04, level)})`;
    }
    find("bar").style.transform = `scaleX(${bars[bars.length - 1] || 0})`;
  }

  function tellLevel() {
    const loudest = Math.round(100 * Math.max(0, ...bars.slice(-10)));
    const words = loudest === 0 ? "silent" : loudest < 35 ? "quiet" : loudest < 75 ? "speech" : "loud";
    const meter = find("meter");
    meter.setAttribute("aria-valuenow", String(loudest));
    meter.setAttribute("aria-valuetext", words);
  }

  // --- what is heard ---

  // A ring in the audio thread; where the browser has none (pages without HTTPS), small buffers one behind the other.
  class Speaker {
    constructor(sampleRate) {
      this.context = new AudioContext({ sampleRate });
      this.node = null;
      this.at = 0;
      this.ready = this.context.audioWorklet ? this.openRing() : Promise.resolve();
    }

    async openRing() {
      await this.context.audioWorklet.addModule(new URL("worklet.js", assets));
      this.node = new AudioWorkletNode(this.context, "ring", { numberOfInputs: 0, outputChannelCount: [1] });
      this.node.connect(this.context.destination);
    }

    play(samples) {
      if (this.node) this.node.port.postMessage(samples);
      else if (!this.context.audioWorklet) this.queue(samples);
    }

    queue(samples) {
      const now = this.context.currentTime;
      if (this.at > now + 1) return;
      if (this.at < now) this.at = now + 0.15;
      const buffer = this.context.createBuffer(1, samples.length, this.context.sampleRate);
      buffer.copyToChannel(samples, 0);
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.context.destination);
      source.start(this.at);
      this.at += buffer.duration;
    }

    close() {
      this.context.close().catch(() => {});
    }
  }

  function listen() {
    wanted = true;
    if (!speaker || speaker.context.sampleRate !== rate) {
      silence();
      speaker = new Speaker(rate);
    }
    speaker.context.resume();
    speaker.ready.catch(() => {
      stop();
      find("note").textContent = "This browser could not play the sound.";
    });
    show("listening");
  }

  function stop() {
    wanted = false;
    silence();
    if (state === "listening") show("ready");
  }

  function silence() {
    if (speaker) speaker.close();
    speaker = null;
  }

  // --- where it comes from ---

  function connect() {
    const url = new URL("ws" + location.search, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    let ended = false;
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") begin(JSON.parse(data));
      else if (data.byteLength === 0) ended = true;
      else if (data.byteLength >= 4) take(new Int16Array(data));
    };
    socket.onclose = ({ code }) => {
      if (ended) end();
      else if (code === 1008) refuse();
      else again();
    };
  }

  function begin(metadata) {
    retries = 0;
    rate = metadata.sampleRate;
    joined = joined || performance.now();
    find("call").textContent = metadata.sessionId;
    if (wanted) listen();
    else show("ready");
  }

  function take(words) {
    const samples = Float32Array.from(words, (word) => word / 32768);
    showLevel(samples);
    if (speaker) speaker.play(samples);
  }

  function end() {
    bars = [];
    show("ended");
    // What has arrived is still played.
    setTimeout(silence, 1500);
  }

  function refuse() {
    bars = [];
    silence();
    show("refused");
  }

  async function again() {
    bars = [];
    show("reconnecting");
    if (await isOver()) return;
    if (retries >= RETRIES_MS.length) {
      show("broken");
      return;
    }
    setTimeout(connect, RETRIES_MS[retries++]);
  }

  // A websocket does not tell why it was refused; this page's own address does.
  async function isOver() {
    try {
      const { status } = await fetch(location.href, { cache: "no-store" });
      if (status === 404) end();
      else if (status === 401 || status === 403) refuse();
      return status === 404 || status === 401 || status === 403;
    } catch {
      return false;
    }
  }

  button.addEventListener("click", () => {
    if (state === "listening") stop();
    else if (state === "ready") listen();
    else if (state === "broken") {
      retries = 0;
      show("connecting");
      connect();
    }
  });

  for (let i = 0; i < BARS; i++) find("bars").append(document.createElement("i"));
  setInterval(draw, 50);
  setInterval(showElapsed, 250);
  setInterval(tellLevel, 1000);
  connect();
})();
