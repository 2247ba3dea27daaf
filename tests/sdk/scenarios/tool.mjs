// The server thinks, the app has the tool.
import { addPhone, answerTools, client, obey, options, saw, tools, watch } from "./sdk.mjs";

const find = ({ code }) => {
    saw("tool", { code });
    return { found: true, guest: "Ada" };
};

const pc = client();
const agent = watch(pc.agent("mara", { ...options.config, tools: tools("findBooking", "Find a booking", find) }));
answerTools(agent, find);
addPhone(agent, options.number);
agent.on("call.ended", (call) => saw("record", { messages: call.messages }));

await pc.connect();
obey({});
