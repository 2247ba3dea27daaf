// A long answer that the caller does not want to hear to its end.
import { addPhone, client, obey, options, pause, saw, watch } from "./sdk.mjs";

const pc = client();
const agent = watch(pc.agent("mara", options.config));
addPhone(agent, options.number);

let answered = false;
agent.on("turn.end", async (turn, call) => {
    if (answered) return;
    answered = true;
    const stream = call.replyStream(turn);
    stream.signal.addEventListener("abort", () => saw("signal"));
    for (let line = 1; line < 200 && !stream.aborted; line += 1) {
        stream.write(`This is item number ${line} of our long menu. `);
        await pause(50);
    }
    saw("stream over", { aborted: stream.aborted, ended: stream.ended });
    stream.end();
});

await pc.connect();
obey({});
