// Any number of agents on one client; each greets who calls. The test gives the orders.
import { FIRST_ERA, addPhone, client, obey, options, saw, watch } from "./sdk.mjs";

const pc = client(options.client);
for (const { id, numbers, config } of options.agents ?? []) {
    const agent = watch(pc.agent(id, config));
    for (const number of numbers) addPhone(agent, number);
    agent.on("call.started", (call) => call.say(`This is ${id}.`));
}
pc.connect().then(
    () => saw("connect resolved"),
    (error) => saw("connect rejected", { code: error.code, error: error.message }),
);

obey({
    disconnect: () => pc.disconnect(),
    calls: ({ id }) => {
        const agent = pc.getAgent(id);
        return [...agent.calls.keys()].filter((key) => agent.call(key).id === key);
    },
    agentAgain: ({ id, config }) => pc.agent(id, config) === pc.getAgent(id),
    language: ({ id }) => pc.getAgent(id).getConfig().language,
    getAgent: ({ id }) => pc.getAgent(id)?.id ?? null,
    removeAgent: ({ id }) => pc.removeAgent(id),
    deploy: ({ id, config }) => { watch(pc.deploy(id, config)); },
    /** Whose calls a development agent gets: 0.1.x sends the frame by hand. */
    callers: ({ id, callers }) => {
        const agent = pc.getAgent(id);
        if (FIRST_ERA) agent.send({ event: "dev.config", callers });
        else agent.routeCallers(callers);
    },
    hangup: ({ id }) => [...pc.getAgent(id).calls.values()].forEach((call) => call.hangup()),
});
