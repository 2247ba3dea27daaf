// The main job: greet, listen, answer word by word, hang up.
import { addPhone, client, obey, options, pause, saw, watch } from "./sdk.mjs";

const pc = client();
const agent = watch(pc.agent("mara", options.config));
addPhone(agent, options.number);

agent.on("call.started", (call) => call.say("Good evening, how may I help?"));
agent.on("turn.end", async (turn, call) => {
    const stream = call.replyStream(turn);
    agent.on("bot.finished", (event) => {
        if ((event.messageId ?? event.message_id) === stream.messageId) call.hangup();
    });
    for (const token of ["Of ", "course. ", "A table ", "for two ", "it is."]) {
        stream.write(token);
        await pause(20);
    }
    stream.end();
});
agent.on("call.ended", (call) => saw("record", {
    transcript: call.transcript, messages: call.messages, duration: call.duration, reason: call.reason,
    direction: call.direction, transport: call.transport, from: call.from, to: call.to,
}));

await pc.connect();
obey({});
