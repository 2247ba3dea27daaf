// Mints browser tokens in every call style that the build has, with and without the agent in this process.
import { FIRST_ERA, client, obey, options, saw, sdk } from "./sdk.mjs";

const { GATEWAY, KEY } = process.env;

// 0.1.x mints at the hosted service only, unless `apiUrl` is given: send that where a name server would.
const fetch = globalThis.fetch;
globalThis.fetch = (url, more) => fetch(String(url).replace(/^https:\/\/[\w.]*pinecall\.io/, GATEWAY), more);

const pc = options.agent || FIRST_ERA ? client() : null;
const agent = options.agent ? pc.agent(options.agent, options.config) : null;
agent?.on("ready", () => saw("ready"));
pc?.connect().then(() => saw("connect resolved"));

/** What came back, or what the app was told. */
const told = (minting) => minting.then((token) => ({ ...token }), (error) => ({ error: error.message }));

obey({
    byFunction: (asked) => told(sdk.createToken({ apiUrl: GATEWAY, apiKey: KEY, ...asked })),
    byClient: ({ channel, agentId, metadata }) => told(pc.createToken(channel, agentId, metadata)),
    byAgent: ({ channel, metadata }) => told(agent.createToken(channel, metadata)),
    deprecated: ({ agentId, withKey }) =>
        sdk.fetchWebRTCToken ? told(sdk.fetchWebRTCToken({ agentId, apiUrl: GATEWAY, apiKey: withKey ? KEY : undefined })) : null,
    disconnect: () => pc.disconnect(),
});
