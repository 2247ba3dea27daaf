// Opens the SDK build that lies in $SDK and levels what its eras spell differently. Talks to the test in JSON lines:
// what the app saw goes out on stdout, orders come in on stdin, and the end of stdin ends the app.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const entry = join(process.env.SDK, "dist", "index.js");
export const sdk = await import(pathToFileURL(entry).href);

// Node has no global WebSocket before 22 and 0.1.x wants one when it connects. Set after the import: later eras have
// looked by then, and stay on their own `ws`.
globalThis.WebSocket ??= createRequire(entry)("ws");

/** 0.1.x: `deploy`, `addChannel`, snake_case events, raw tools. */
export const FIRST_ERA = "deploy" in sdk.Pinecall.prototype;
export const options = JSON.parse(process.env.OPTIONS ?? "{}");
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function saw(what, fields = {}) {
    process.stdout.write(JSON.stringify({ saw: what, ...fields }) + "\n");
}

/** A client of this gateway; each era reads its own spelling of the address and of `reconnect`. */
export function client({ reconnect = true, ...more } = {}) {
    const pc = new sdk.Pinecall({
        apiKey: process.env.KEY,
        url: process.env.GATEWAY.replace(/^http/, "ws") + "/client",
        apiUrl: process.env.GATEWAY,
        reconnect,
        autoReconnect: reconnect !== false,
        ...more,
    });
    pc.on("connected", () => saw("connected"));
    pc.on("disconnected", (reason) => saw("disconnected", { reason }));
    pc.on("reconnecting", (attempt) => saw("reconnecting", { attempt }));
    pc.on("error", (error) => saw("error", { error: error.message, code: error.code }));
    return pc;
}

export function addPhone(agent, number) {
    if (FIRST_ERA) agent.addChannel("phone", number);
    else agent.addPhoneNumber(number);
}

/** A tool in the era's own form, and what answers it. `schema`: zod where there is zod; its bare shape does, too. */
export function tools(name, description, execute) {
    if (FIRST_ERA) {
        const parameters = { type: "object", properties: { code: { type: "string" } }, required: ["code"] };
        return [{ type: "function", function: { name, description, parameters } }];
    }
    const code = { _def: { typeName: "ZodString" } };
    const schema = { parse: (input) => input, _def: { typeName: "ZodObject", shape: () => ({ code }) } };
    return [sdk.tool({ name, description, schema, execute })];
}

/** 0.1.x answers tool calls by hand; later eras call `execute` themselves. */
export function answerTools(agent, execute) {
    if (!FIRST_ERA) return;
    agent.on("llm.tool_call", (call, data) => {
        const results = data.tool_calls.map((asked) => ({
            tool_call_id: asked.id,
            result: execute(JSON.parse(asked.arguments)),
        }));
        agent.send({ event: "llm.tool_result", call_id: call.id, msg_id: data.msg_id, results });
    });
}

const EVENTS = [
    "ready", "call.started", "call.ended", "speech.started", "speech.ended", "user.speaking", "user.message", "eager.turn",
    "turn.pause", "turn.end", "turn.resumed", "turn.continued", "bot.speaking", "bot.word", "bot.finished",
    "bot.interrupted", "message.confirmed", "reply.rejected", "session.timeout",
];

/** Report everything the app is told about this agent's calls. */
export function watch(agent) {
    for (const name of EVENTS) agent.on(name, (...args) => saw(name, { agent: agent.id, ...facts(args) }));
    agent.on("channel.added", (type, ref) => saw("channel.added", { agent: agent.id, type, ref }));
    agent.on("channel.removed", (ref) => saw("channel.removed", { agent: agent.id, ref }));
    return agent;
}

function facts(args) {
    const found = {};
    for (const arg of args) {
        if (typeof arg === "string") found.reason = arg;
        else if (typeof arg?.hangup === "function") Object.assign(found, { call: arg.id, from: arg.from, to: arg.to });
        else if (arg !== null && typeof arg === "object") {
            found.message = arg.messageId ?? arg.message_id;
            found.turn = arg.turnId ?? arg.turn_id ?? arg.id;
            found.text = arg.text;
            found.word = arg.word;
            found.reason = arg.reason;
        }
    }
    return found;
}

/** Carry out the test's orders: one function each, by name. What it returns is reported as `done`. */
export function obey(more) {
    const orders = { isFirstEra: () => FIRST_ERA, ...more };
    const lines = createInterface({ input: process.stdin });
    lines.on("line", async (line) => {
        const { order, ...fields } = JSON.parse(line);
        const answer = await orders[order](fields);
        saw("done", { order, answer });
    });
    lines.on("close", () => process.exit(0));
}
