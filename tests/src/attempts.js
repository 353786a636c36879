// What a page that was taken over would try. Answers each by name: what it got, or "refused" with the reason.
const [port, done] = arguments;
const { invoke } = window.__TAURI_INTERNALS__;
const here = `http://127.0.0.1:${port}/`;
const file = "/etc/passwd";
const attempts = {
  "read a file": () => invoke("plugin:fs|read_text_file", { path: file }),
  "write a file": () => invoke("plugin:fs|write_text_file", { path: "hospes-attempt", contents: "x" }),
  "run a program": () => invoke("plugin:shell|execute", { program: "id", args: [], options: {} }),
  "open a program": () => invoke("plugin:opener|open_path", { path: file }),
  "ask the network through the app": () => invoke("plugin:http|fetch", { clientConfig: { url: here, method: "GET" } }),
  "choose a file": () => invoke("plugin:dialog|open", { options: {} }),
  "notify": () => invoke("plugin:notification|notify", { options: { title: "x" } }),
  "start with the session": () => invoke("plugin:autostart|enable"),
  "end the app": () => invoke("plugin:process|exit", { code: 0 }),
  "make a window": () => invoke("plugin:webview|create_webview_window", { options: { label: "x", url: here } }),
  "close the window": () => invoke("plugin:window|close", { label: "main" }),
  "send an event": () => invoke("plugin:event|emit", { event: "x", payload: null }),
  "call a command that is none": () => invoke("read_file", { path: file }),
  "call an engine's command that is none": () => invoke("call", { request: { command: "read_file", args: { path: file } } }),
  "fetch": () => fetch(here, { mode: "no-cors" }),
  "fetch a file": () => fetch(`file://${file}`),
  "fetch an asset": () => fetch(`asset://localhost${file}`),
  "XMLHttpRequest": () =>
    new Promise((yes, no) => {
      const request = new XMLHttpRequest();
      request.onload = () => yes(request.status);
      request.onerror = no;
      request.open("GET", here);
      request.send();
    }),
  "what it may": () => invoke("call", { request: { command: "status", args: {} } }),
  "WebSocket": () =>
    new Promise((yes, no) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
      socket.onopen = yes;
      socket.onerror = no;
    }),
  "beacon": async () => {
    if (!navigator.sendBeacon(here, "x")) throw new Error("refused");
    // Taken into a queue says nothing; whether it arrives, the listener tells.
    throw new Error("not known");
  },
  "picture": () =>
    new Promise((yes, no) => {
      const picture = new Image();
      picture.onload = yes;
      picture.onerror = no;
      picture.src = `${here}x.png`;
    }),
  "script of another origin": () =>
    new Promise((yes, no) => {
      const script = document.createElement("script");
      script.onload = yes;
      script.onerror = no;
      script.src = `${here}x.js`;
      document.head.append(script);
    }),
  "script in the page": async () => {
    const script = document.createElement("script");
    script.textContent = "window.attempted = true";
    document.head.append(script);
    if (window.attempted !== true) throw new Error("refused");
  },
  "eval": async () => (0, eval)("1 + 1"),
  "frame": () =>
    new Promise((yes, no) => {
      const frame = document.createElement("iframe");
      frame.src = here;
      frame.onload = () => {
        // A frame that was refused loads an empty page.
        const isEmpty = frame.contentDocument !== null;
        frame.remove();
        if (isEmpty) no("an empty page");
        else yes("loaded");
      };
      document.body.append(frame);
      setTimeout(no, 1000);
    }),
  "change the language itself": async () => {
    Object.prototype.attempted = true;
    if ({}.attempted !== true) throw new Error("refused");
  },
};
// What neither succeeds nor fails may have opened something.
const late = () => new Promise((yes) => setTimeout(() => yes("no answer"), 3000));
const answered = Object.entries(attempts).map(async ([name, attempt]) => {
  try {
    const got = await Promise.race([attempt(), late()]);
    return [name, `got ${JSON.stringify(got) ?? "something"}`];
  } catch (reason) {
    const words = reason instanceof Error || reason instanceof Event ? reason.type ?? reason.message : reason;
    return [name, `refused: ${typeof words === "string" ? words : JSON.stringify(words)}`];
  }
});
Promise.all(answered).then((all) => done(Object.fromEntries(all)));
