// Dials when it is told to, and reports what becomes of the promise.
import { addPhone, client, obey, options, saw, watch } from "./sdk.mjs";

const pc = client();
const agent = watch(pc.agent("mara", options.config));
for (const number of options.numbers) addPhone(agent, number);
agent.on("call.ended", (call, reason) => saw("over", {
    reason, call: call.id, to: call.to, direction: call.direction, metadata: call.metadata, transcript: call.transcript,
}));

await pc.connect();
obey({
    dial: (order) => {
        const asked = Date.now();
        const after = () => Date.now() - asked;
        agent.dial(order).then(
            (call) => saw("dial resolved", {
                call: call.id, to: call.to, from: call.from, direction: call.direction, metadata: call.metadata, ms: after(),
            }),
            (error) => saw("dial rejected", { error: error.message, ms: after() }),
        );
    },
    calls: () => [...agent.calls.keys()],
    hangup: () => [...agent.calls.values()].forEach((call) => call.hangup()),
});
