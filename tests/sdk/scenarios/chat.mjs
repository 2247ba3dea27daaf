// Pages chat with the agent: the server thinks and the app has the tool, or (without a model) the app answers by itself.
import { FIRST_ERA, answerTools, client, obey, options, saw, sdk, tools, watch } from "./sdk.mjs";

const find = ({ code }) => {
    saw("tool", { code });
    return { found: true, guest: "Ada" };
};

const pc = client();
const offered = options.config.llm ? { tools: tools("findBooking", "Find a booking", find) } : {};
const agent = watch(pc.agent("mara", { ...options.config, ...offered }));
answerTools(agent, find);
agent.on("chat.started", (call) => saw("chat.started", { call: call.id, metadata: call.metadata, transport: call.transport }));
agent.on("call.ended", (call) => saw("record", { messages: call.messages, transcript: call.transcript }));
agent.on("llm.chat.ended", (data) => saw("raw ended", { call: data.call_id, reason: data.reason }));
if (!options.config.llm) {
    agent.on("user.message", (event, call) => {
        if (event.text === "Stream") {
            const stream = call.replyStream();
            for (const piece of ["One", " two", " three."]) stream.write(piece);
            stream.end();
        } else call.reply(`You wrote ${event.text}.`);
    });
}

await pc.connect();

obey({
    token: async ({ metadata }) => {
        if (FIRST_ERA) return sdk.createToken({ apiKey: process.env.KEY, apiUrl: process.env.GATEWAY, agentId: "mara", channel: "chat" });
        return agent.createToken("chat", metadata);
    },
});
