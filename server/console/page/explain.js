// What codes on the wire mean to people, and what helps.

const CODES = {
  PROVIDER_KEY_REQUIRED: "there is no API key for this vendor: set one on the gateway, or let the agent choose another",
  STT_ERROR: "speech recognition failed; it is opened again, or replaced, while the call goes on",
  TTS_ERROR: "the voice failed; words it was to say may be missing",
  LLM_ERROR: "the language model failed; the caller heard an apology",
  RATE_LIMITED: "the vendor wants fewer requests at a time: the limit of the account is reached",
  CONFIG_ERROR: "the agent's configuration cannot be served",
  FORWARD_FAILED: "the carrier did not transfer the call",
};

const ENDS = {
  hangup: "hung up",
  client_hangup: "hung up by the agent",
  idle_timeout: "nobody spoke any more",
  max_duration: "the longest a call may last",
  connection_lost: "the caller's connection was lost",
  agent_disconnected: "the agent's program went away",
  agent_removed: "the agent was removed",
  disconnected: "the line was lost, or the gateway stopped",
  "no-answer": "nobody answered",
  busy: "busy",
  canceled: "called off",
  failed: "the carrier could not connect it",
  flood: "the page sent too much",
  error: "a fault of the gateway; its log says which",
};

// On the telephone the client that hangs up is the agent's program; elsewhere it is the visitor's page.
export function ended(reason, id = "") {
  if (reason === "client_hangup" && /^(wrt_|chat-)/.test(id)) return "the visitor left";
  return ENDS[reason] ?? reason ?? "over";
}

export function trouble(event) {
  const why = CODES[event.code];
  return why ? `${event.error} — ${why}` : event.error;
}
