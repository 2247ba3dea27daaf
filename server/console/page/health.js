// How the gateway fares, in one line.

import { clock, h } from "./dom.js";

export function drawHealth(box, health) {
  if (!health) {
    box.replaceChildren(chip("gateway", "connection lost", "bad"));
    return;
  }
  const full = health.max_calls > 0 && health.calls >= health.max_calls;
  const limit = health.max_calls ? ` of ${health.max_calls}` : "";
  const chips = [
    chip("calls", `${health.calls}${limit}`, full ? "bad" : "", "Live calls of the whole gateway"),
    health.chats ? chip("chats", String(health.chats)) : null,
    chip("lag", `${health.loop_lag_ms} ms`, level(health.loop_lag_ms, 15, 50), "How late the gateway's clock for audio runs; audio suffers from about 50 ms"),
    chip("cpu", `${Math.round(health.cpu_percent)} %`, level(health.cpu_percent, 60, 85), "Of the one core a gateway uses"),
    chip("memory", `${Math.round(health.memory_mb)} MB`, "minor"),
    chip("store", health.store_reachable ? health.store : `${health.store} unreachable`, health.store_reachable ? "minor" : "bad"),
    chip("engines", health.engines.length ? health.engines.join(", ") : "built in", "minor"),
    chip("up", clock(health.uptime_seconds), "minor"),
  ];
  box.replaceChildren(...chips.filter(Boolean));
}

const level = (value, warn, bad) => (value > bad ? "bad" : value > warn ? "warn" : "");

function chip(name, value, how = "", title = null) {
  return h("span", { class: `chip ${how}`, title }, h("span", { class: "chip-name" }, name), " ", h("span", {}, value));
}
