// Server-sent events for a dashboard: one agent's, and those of the agents a tenant may see.
import { addPhone, client, obey, options, saw, watch } from "./sdk.mjs";

const pc = client();
for (const { id, number, config } of options.agents) {
    const agent = watch(pc.agent(id, config));
    addPhone(agent, number);
    agent.on("call.started", (call) => call.say(`This is ${id}.`));
    agent.on("turn.end", (turn, call) => call.reply("I see, and I shall tell you all about our tables, one by one, for a good while."));
}

async function read(name, response) {
    if (!response.headers.get("content-type").startsWith("text/event-stream")) throw new Error("not an event stream");
    let text = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
        text += piece;
        const frames = text.split("\n\n");
        text = frames.pop();
        for (const frame of frames) {
            const [, event, data] = frame.match(/^event: (\S+)\ndata: (.*)$/) ?? [];
            if (event) saw("sse", { stream: name, event, data: JSON.parse(data) });
        }
    }
}
void read("one agent", pc.getAgent(options.agents[0].id).stream());
void read("tenant", pc.stream({ agents: [options.agents[0].id] }));
void read("all", pc.stream());

await pc.connect();
obey({});
