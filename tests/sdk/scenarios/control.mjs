// Screens its calls, and presses keys. The test gives the orders; calls that ring wait for them.
import { FIRST_ERA, addPhone, client, obey, options, saw, watch } from "./sdk.mjs";

const pc = client();
const agent = watch(pc.agent("mara", options.config));
const ringing = new Map();
if (options.ringing && !FIRST_ERA) agent.addPhoneNumber(options.number, { ringing: true });
else addPhone(agent, options.number);

agent.on("call.ringing", (call) => {
    ringing.set(call.callId, call);
    saw("call.ringing", { call: call.callId, from: call.from, to: call.to, direction: call.direction });
});

await pc.connect();
obey({
    screens: () => !FIRST_ERA,
    accept: ({ call }) => { ringing.get(call).accept(); },
    reject: ({ call, reason }) => { ringing.get(call).reject(reason); },
    press: ({ digits }) => { [...agent.calls.values()].at(-1).sendDTMF(digits); },
    forward: ({ to, message }) => { [...agent.calls.values()].at(-1).forward(to, { message }); },
});
