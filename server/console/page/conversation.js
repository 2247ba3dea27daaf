// From the events of one conversation to what is drawn of it: lines of a transcript, in order. No drawing here.

import { ended, trouble } from "./explain.js";

const NOTES = {
  "call.ringing": () => "ringing at the agent",
  "call.dialing": (e) => `dialling ${e.to}`,
  "call.held": () => "on hold",
  "call.unheld": () => "hold ended",
  "call.muted": () => "caller muted",
  "call.unmuted": () => "caller no longer muted",
  "call.updated": (e) => `language is now ${e.language}`,
  "call.forwarded": (e) => `forwarded to ${e.to}`,
  "call.dtmf_sent": (e) => `agent pressed ${e.digits}`,
  "call.dtmf_received": (e) => `caller pressed ${e.digit}`,
  "session.idle_warning": (e) => `silence; the call ends in ${e.remaining_seconds} s`,
  "session.timeout": (e) => (e.reason === "max_duration" ? "time limit reached" : "silent for too long"),
  "session.configured": (e) => (e.success ? "session configured" : `configuration refused: ${e.error}`),
  "reply.rejected": (e) => `reply of the agent not said: ${e.reason}`,
  "llm.error": trouble,
  error: trouble,
};

export class Conversation {
  constructor() {
    this.lines = [];
    this.byKey = new Map();
    this.startedAt = null;
    this.metadata = {};
    this.language = "";
    this.turns = [];
    this.user = "";
    this.bot = "";
    this.ended = null;
    this.shortened = false;
    this.serial = 0;
  }

  take(event) {
    switch (event.event) {
      case "call.started":
      case "llm.chat.started":
        this.startedAt ??= event.ts;
        this.metadata = event.metadata ?? {};
        this.language = event.language ?? "";
        if (event.resumed) this.note(event, "the agent's program is back");
        break;
      case "call.ended":
      case "llm.chat.ended":
      case "llm.chat.error":
        this.over(event);
        break;
      case "speech.started":
      case "turn.resumed":
        this.user = "speaking";
        break;
      case "speech.ended":
        this.user = "silent";
        break;
      case "turn.pause":
        this.user = "pausing";
        break;
      case "user.speaking":
        this.said(event, false);
        break;
      case "user.message":
        this.said(event, true);
        break;
      case "chat.message":
        this.line(`u${event.message_id}`, event, { who: "user", text: event.text, state: "final" });
        break;
      case "chat.response":
        this.line(`b${event.message_id}`, event, { who: "bot", words: [], text: event.text, state: "finished" });
        break;
      case "turn.end":
        this.user = "";
        this.turnEnded(event);
        break;
      case "turn.continued":
        this.continued(event);
        break;
      case "bot.speaking":
        this.bot = "speaking";
        this.line(`b${event.message_id}`, event, { who: "bot", words: [], text: event.text, state: "speaking" });
        break;
      case "bot.word":
        this.word(event);
        break;
      case "bot.finished":
        this.finished(event);
        break;
      case "bot.interrupted":
        this.interrupted(event);
        break;
      case "llm.tool_call":
        for (const call of event.tool_calls) {
          this.line(`t${call.id}`, event, { who: "tool", name: call.name, args: call.arguments });
        }
        break;
      case "llm.tool_result":
        this.result(event);
        break;
      default: {
        const note = NOTES[event.event];
        const bad = event.event === "error" || event.event === "llm.error" || event.success === false;
        if (note) this.note(event, note(event), bad);
      }
    }
  }

  // `at` is when a line began: what comes later changes it, not its place.
  line(key, event, fields) {
    let line = this.byKey.get(key);
    if (line === undefined) {
      line = { key, at: event.ts, version: 0 };
      this.byKey.set(key, line);
      this.lines.push(line);
    }
    Object.assign(line, fields);
    line.version += 1;
    return line;
  }

  note(event, said, bad = false) {
    this.serial += 1;
    this.line(`n${this.serial}`, event, { who: "note", text: said, bad });
  }

  over(event) {
    this.ended = event;
    this.user = this.bot = "";
    for (const line of this.lines) {
      if (line.state === "interim" || line.state === "speaking") {
        line.state = line.who === "user" ? "final" : "interrupted";
        line.reason = "ended";
        line.heard ??= (line.words ?? []).filter(Boolean).length;
        line.version += 1;
      }
    }
    this.note(event, event.error ? `failed: ${event.error}` : `ended: ${ended(event.reason, event.call_id)}`, Boolean(event.error));
  }

  said(event, final) {
    const key = `u${event.turn_id}`;
    const known = this.byKey.get(key);
    // A turn that goes on after the bot began to answer is told anew, below that answer.
    if (known?.continued) {
      this.lines.splice(this.lines.indexOf(known), 1);
      this.lines.push(known);
      known.continued = false;
    }
    this.line(key, event, { who: "user", text: event.text, state: final ? "final" : "interim" });
  }

  turnEnded(event) {
    const known = this.byKey.get(`u${event.turn_id}`);
    if (known) this.line(known.key, event, { latency: event.latency_ms, continued: false });
  }

  continued(event) {
    const known = this.byKey.get(`u${event.turn_id}`);
    if (known) this.line(known.key, event, { continued: true, latency: undefined });
    this.user = "speaking";
  }

  word(event) {
    const key = `b${event.message_id}`;
    const known = this.byKey.get(key) ?? this.line(key, event, { who: "bot", words: [], text: "", state: "speaking" });
    known.words[event.word_index] = event.word;
    known.version += 1;
  }

  finished(event) {
    this.bot = "";
    const known = this.byKey.get(`b${event.message_id}`);
    if (!event.text && !known?.words?.length) {
      if (known) this.drop(known);
      return;
    }
    this.line(`b${event.message_id}`, event, { who: "bot", words: [], text: event.text, state: "finished" });
  }

  interrupted(event) {
    this.bot = "";
    const known = this.byKey.get(`b${event.message_id}`);
    if (!known) return;
    if (event.words_spoken === 0 && !known.text) {
      this.drop(known);
      return;
    }
    this.line(known.key, event, { state: "interrupted", reason: event.reason, heard: event.words_spoken });
  }

  result(event) {
    const known = this.byKey.get(`t${event.tool_call_id}`);
    if (known) this.line(known.key, event, { result: event.result, took: event.ts - known.at });
  }

  drop(line) {
    this.byKey.delete(line.key);
    this.lines.splice(this.lines.indexOf(line), 1);
  }

  // All of it as plain text.
  plain(time) {
    const who = { user: "Caller", bot: "Agent", tool: "Tool", note: "--" };
    return this.lines.map((line) => `${time(line)}  ${who[line.who]}  ${plain(line)}`).join("\n");
  }
}

export function words(line) {
  return line.words.filter(Boolean).join(" ");
}

function plain(line) {
  if (line.who === "tool") return `${line.name}(${line.args}) -> ${line.result ?? "…"}`;
  if (line.who !== "bot" || line.state === "finished") return line.text;
  return line.state === "interrupted" ? `${words(line)} [interrupted]` : words(line);
}
