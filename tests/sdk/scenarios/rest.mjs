// What the SDK's own helpers make of the gateway's HTTP API.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { obey } from "./sdk.mjs";

const sdk = await import(pathToFileURL(join(process.env.SDK, "dist", "index.js")).href);
const here = { apiKey: process.env.KEY, apiUrl: process.env.GATEWAY };
const told = (asking) => asking.catch((error) => ({ thrown: error.message }));

obey({
    voices: ({ provider, language, apiUrl = here.apiUrl }) => told(sdk.fetchVoices({ provider, language, apiUrl })),
    phones: ({ apiKey = here.apiKey }) => told(sdk.fetchPhones({ ...here, apiKey })),
    balance: ({ apiKey = here.apiKey }) => told(sdk.fetchTwilioBalance({ ...here, apiKey })),
});
