// Talk with an agent from here, as any page could: a token, an offer, a microphone.

import { announce, clock, h, text } from "./dom.js";
import { api } from "./feed.js";

const GATHER_MS = 2000;
const PING_MS = 1000;
const LOST_MS = 6000;

export class Talk {
  constructor(box, { began }) {
    this.box = box;
    this.began = began;
    this.agent = null;
    this.session = null;
  }

  get active() {
    return this.session !== null;
  }

  async start(agent) {
    if (this.active) this.stop();
    const session = (this.session = { agent, muted: false, closed: false });
    this.draw("asking for the microphone");
    try {
      await connect(session, (state) => this.session === session && this.draw(state), (event) => this.take(session, event));
      if (session.closed) return;
      session.startedAt = performance.now();
      session.timer = setInterval(() => this.tick(), 500);
      this.draw("connected");
      announce(`Talking with ${agent}`);
      this.box.querySelector("button")?.focus();
      this.began(session.callId);
    } catch (error) {
      release(session);
      if (this.session !== session) return;
      this.session = null;
      this.draw(null, reason(error));
      this.box.querySelector("button").focus();
    }
  }

  stop() {
    const session = this.session;
    this.session = null;
    if (session) release(session);
    this.draw(null);
    announce("Call ended");
  }

  mute() {
    const session = this.session;
    if (!session?.stream) return;
    session.muted = !session.muted;
    for (const track of session.stream.getAudioTracks()) track.enabled = !session.muted;
    if (session.channel?.readyState === "open") session.channel.send(JSON.stringify({ action: session.muted ? "mute" : "unmute" }));
    announce(session.muted ? "Microphone muted" : "Microphone on");
    this.draw(session.muted ? "muted" : "connected");
  }

  take(session, event) {
    if (this.session !== session) return;
    if (event === "lost" || event.event === "session.timeout") this.stop();
  }

  tick() {
    const session = this.session;
    if (session?.startedAt && this.timeNode) text(this.timeNode, clock((performance.now() - session.startedAt) / 1000));
  }

  draw(state, trouble) {
    const session = this.session;
    this.box.hidden = !session && !trouble;
    document.body.classList.toggle("talking", !this.box.hidden);
    if (trouble) {
      this.box.replaceChildren(h("p", { class: "error", role: "alert" }, trouble),
        h("button", { class: "quiet", type: "button", onclick: () => this.draw(null) }, "Dismiss"));
      return;
    }
    if (!session) return;
    this.timeNode = h("span", { class: "time" });
    this.box.replaceChildren(
      h("span", { class: `dot ${state === "connected" ? "on" : ""}`, "aria-hidden": "true" }),
      h("p", {}, h("strong", { dir: "auto" }, session.agent), " ", h("span", { class: "talk-state" }, state)),
      this.timeNode,
      h("button", { type: "button", "aria-pressed": String(session.muted), onclick: () => this.mute() }, session.muted ? "Unmute" : "Mute"),
      h("button", { class: "danger", type: "button", onclick: () => this.stop() }, "Hang up"));
    this.tick();
  }
}

async function connect(session, say, take) {
  session.stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  say("connecting");
  const grant = await api("POST", "/console/token", { agent: session.agent, channel: "webrtc" });
  const ice = await api("GET", "/webrtc/ice-servers").catch(() => ({ iceServers: [] }));
  if (session.closed) return;
  const peer = (session.peer = new RTCPeerConnection({ iceServers: ice.iceServers }));
  for (const track of session.stream.getAudioTracks()) peer.addTrack(track, session.stream);
  peer.ontrack = (event) => play(session, event.streams[0]);
  const channel = (session.channel = peer.createDataChannel("events", { ordered: true }));
  channel.onopen = () => (session.ping = setInterval(() => channel.readyState === "open" && channel.send("ping"), PING_MS));
  channel.onmessage = (message) => message.data !== "pong" && take(JSON.parse(message.data));
  peer.onconnectionstatechange = () => {
    clearTimeout(session.losing);
    if (["failed", "closed"].includes(peer.connectionState)) take("lost");
    // That may pass: a telephone between two networks.
    if (peer.connectionState === "disconnected") session.losing = setTimeout(() => take("lost"), LOST_MS);
  };
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  const answer = await api("POST", "/webrtc/offer", { sdp: peer.localDescription.sdp, type: "offer", token: grant.token });
  if (session.closed) return;
  session.callId = answer.call_id;
  await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
}

function gathered(peer) {
  return new Promise((resolve) => {
    if (peer.iceGatheringState === "complete") return resolve();
    setTimeout(resolve, GATHER_MS);
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
  });
}

function play(session, stream) {
  session.sound = new Audio();
  session.sound.autoplay = true;
  session.sound.srcObject = stream;
  session.sound.play().catch(() => {});
}

function release(session) {
  session.closed = true;
  clearInterval(session.timer);
  clearInterval(session.ping);
  clearTimeout(session.losing);
  for (const track of session.stream?.getTracks() ?? []) track.stop();
  session.peer?.close();
  if (session.sound) session.sound.srcObject = null;
}

function reason(error) {
  if (!navigator.mediaDevices) return "Browsers give the microphone to https pages and to localhost only. Open the console there.";
  if (error.name === "NotAllowedError") return "The browser did not allow the microphone. Allow it for this page and try again.";
  if (error.name === "NotFoundError") return "This machine has no microphone.";
  return error.message;
}
