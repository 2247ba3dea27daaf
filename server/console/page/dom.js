// Small ways to make and change elements. Text only ever goes in as text.

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

// Make the children of `parent` those of `items`, in order, keeping what is there already: focus and scroll stay.
export function keyed(parent, items, key, make, update) {
  const known = new Map();
  for (const node of parent.children) known.set(node.dataset.key, node);
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let node = known.get(name);
    known.delete(name);
    if (node === undefined) {
      node = make(item);
      node.dataset.key = name;
    }
    update(node, item);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const gone of known.values()) gone.remove();
}

// Run `job` before the next picture, however often it is asked for until then.
export function soon(job) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      job();
    });
  };
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const rest = String(whole % 60).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

export function ago(seconds) {
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const ms = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`);
export const many = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

export function announce(message) {
  text(byId("say"), message);
}

export const narrow = () => matchMedia("(max-width: 760px)").matches;

// A button that puts `source()` on the clipboard and says so.
export function copier(name, source) {
  const button = h("button", { type: "button", class: "small", "aria-label": `Copy ${name}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(source());
    text(button, done ? "Copied" : "Not copied");
    announce(done ? `Copied ${name}` : `The browser did not let ${name} be copied`);
    setTimeout(() => text(button, "Copy"), 1600);
  });
  return button;
}

async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    // Pages without TLS have no clipboard of that kind.
    const field = h("textarea", { class: "hidden", "aria-hidden": "true" });
    field.value = words;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
