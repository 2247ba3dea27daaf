// From the events of one call to what is drawn of it: lines of a transcript, in order. No drawing here.

const NOTES = {
  "call.held": () => "on hold",
  "call.unheld": () => "hold ended",
  "call.muted": () => "caller muted",
  "call.unmuted": () => "caller unmuted",
  "call.forwarded": (e) => `forwarded to ${e.to}`,
  "call.dtmf_sent": (e) => `sent tones ${e.digits}`,
  "call.dtmf_received": (e) => `caller pressed ${e.digit}`,
  "session.idle_warning": (e) => `silence; ${e.remaining_seconds} s left`,
  "session.timeout": (e) => (e.reason === "max_duration" ? "time limit reached" : "silent for too long"),
  "session.configured": (e) => (e.success ? "session configured" : `configuration refused: ${e.error}`),
  "reply.rejected": (e) => `reply not said: ${e.reason}`,
  "llm.error": (e) => `model failed: ${e.error} (${e.code})`,
  error: (e) => `${e.code}: ${e.error}`,
};
const TROUBLE = new Set(["llm.error", "error"]);

export class Conversation {
  constructor() {
    this.lines = [];
    this.byKey = new Map();
    this.startedAt = null;
    this.turns = [];
    this.user = "idle";
    this.bot = "idle";
    this.ended = null;
    this.serial = 0;
  }

  take(event) {
    switch (event.event) {
      case "call.started":
        this.startedAt ??= event.ts;
        if (event.resumed) this.note(event, "the agent is back");
        break;
      case "call.ended":
        this.ended = event;
        this.user = this.bot = "idle";
        this.note(event, `call ended: ${event.reason}`);
        break;
      case "speech.started":
        this.user = "speaking";
        break;
      case "speech.ended":
        this.user = "silent";
        break;
      case "turn.pause":
        this.user = "pausing";
        break;
      case "turn.resumed":
        this.user = "speaking";
        break;
      case "user.speaking":
        this.said(event, false);
        break;
      case "user.message":
        this.said(event, true);
        break;
      case "turn.end":
        this.user = "idle";
        this.ended_turn(event);
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
          this.line(`t${call.id}`, event, { who: "tool", name: call.name, args: call.arguments, state: "running" });
        }
        break;
      case "llm.tool_result":
        for (const result of event.results ?? [event]) this.result(result);
        break;
      default: {
        const note = NOTES[event.event];
        if (note) this.note(event, note(event), TROUBLE.has(event.event));
      }
    }
  }

  line(key, event, fields) {
    let line = this.byKey.get(key);
    if (line === undefined) {
      line = { key, at: event.ts };
      this.byKey.set(key, line);
      this.lines.push(line);
    }
    Object.assign(line, fields);
    line.version = (line.version ?? 0) + 1;
    return line;
  }

  note(event, said, trouble = false) {
    this.serial += 1;
    this.line(`n${event.seq ?? this.serial}`, event, { who: "note", text: said, trouble });
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

  ended_turn(event) {
    const known = this.byKey.get(`u${event.turn_id}`);
    if (known) this.line(known.key, event, { latency: event.latency_ms });
  }

  continued(event) {
    const known = this.byKey.get(`u${event.turn_id}`);
    if (known) known.continued = true;
    this.user = "speaking";
  }

  word(event) {
    const key = `b${event.message_id}`;
    const known = this.byKey.get(key) ?? this.line(key, event, { who: "bot", words: [], text: "", state: "speaking" });
    known.words[event.word_index] = event.word;
    known.version += 1;
  }

  finished(event) {
    this.bot = "idle";
    const known = this.byKey.get(`b${event.message_id}`);
    if (!event.text && !known?.words?.length) {
      if (known) this.drop(known);
      return;
    }
    this.line(`b${event.message_id}`, event, { who: "bot", words: [], text: event.text, state: "finished" });
  }

  interrupted(event) {
    this.bot = "idle";
    const known = this.byKey.get(`b${event.message_id}`);
    if (!known) return;
    if (event.words_spoken === 0 && !known.text) {
      this.drop(known);
      return;
    }
    this.line(known.key, event, { state: "interrupted", reason: event.reason, heard: event.words_spoken });
  }

  result(result) {
    const known = this.byKey.get(`t${result.tool_call_id}`);
    if (known) this.line(known.key, { ts: known.at }, { result: result.result, state: "done" });
  }

  drop(line) {
    this.byKey.delete(line.key);
    this.lines.splice(this.lines.indexOf(line), 1);
  }
}
