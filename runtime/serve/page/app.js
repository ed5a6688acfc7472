// The page of salema-serve: it shows the server's sources, and sends the visitor's camera or file. No library.

const ASKED = 2; // results asked for, or frames sent, before the first of them is answered
const SENT_SIDE = 640; // pixels; the network sees less
const LONGEST_WAIT_MS = 5000;
const POLL_MS = 2000;
const SILENT_MS = 5000; // of a server that has no more to say
const STUCK_MS = 20000; // of a server that owes a result; a slow network may need some seconds
const ENDED = 1000; // codes with which the server closes: a source is over
const POLICY = 1008; // the token is wrong, or nothing was sent for --idle-s
const UNANSWERED = "The server does not answer; trying again.";

const find = (selector, within = document) => within.querySelector(selector);
const look = find("#look");
const news = find("#news");
const sockets = new Set();

function say(sentence) {
  if (news.textContent !== sentence) news.textContent = sentence;
}

function unsay(sentence) {
  if (news.textContent === sentence) say("");
}

function settings() {
  const chosen = Object.fromEntries(new FormData(look));
  return { type: "settings", ...chosen, opacity: Number(chosen.opacity) };
}

// The length of the header (uint32, little-endian), the header in JSON, the payload.
function unpack(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  return [header, new Blob([new Uint8Array(buffer, 4 + size)], { type: header.mime })];
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A WebSocket that is opened again when it is lost, until it is closed from here. It rests, and is opened again once it
// is woken, where its source is over, and where `rests` says that nothing is to be sent.
class Connection {
  constructor(path, { opened = () => {}, answered, refused = () => {}, ended = say, rests = () => false }) {
    Object.assign(this, { path, opened, answered, refused, ended, rests, form: "jpeg", said: "", waitMs: 500, isWanted: true });
    sockets.add(this);
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}${this.path}`);
    this.socket = socket;
    this.isResting = false;
    this.heardMs = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.tellLook();
      this.opened();
    };
    socket.onmessage = ({ data }) => this.hear(data);
    socket.onclose = ({ code, reason }) => this.isWanted && this.lost(code, reason);
  }

  hear(data) {
    this.waitMs = 500;
    this.heardMs = performance.now();
    if (typeof data === "string") {
      const { error, frame } = JSON.parse(data);
      this.say(error);
      this.refused(frame);
    } else {
      this.say("");
      this.answered(...unpack(data));
    }
  }

  lost(code, reason) {
    if (code === POLICY && reason.startsWith("token")) location.reload(); // the cookie has ended: it asks for the token
    this.isResting = code === ENDED || (code === POLICY && this.rests());
    if (code === ENDED) this.ended(reason);
    this.say(code === ENDED || code === POLICY ? "" : `${reason || "The connection is lost"}; trying again.`);
    if (!this.isResting && !document.hidden) this.openLater();
  }

  // Says a sentence in place of its last one, and takes that back if no other is there.
  say(sentence) {
    if (sentence) say(sentence);
    else if (this.said) unsay(this.said);
    this.said = sentence;
  }

  openLater() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.isWanted && this.open(), this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  // Opens it at once, if it is closed.
  wake() {
    if (this.socket.readyState !== WebSocket.CLOSED) return;
    clearTimeout(this.timer);
    this.open();
  }

  // Gives up a socket that says nothing: where a machine sleeps, moves or loses its power, nobody closes it.
  renew(silentMs = SILENT_MS) {
    if (this.socket.readyState > WebSocket.OPEN || performance.now() - this.heardMs < silentMs) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.openLater();
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  tell(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  tellLook() {
    this.tell({ ...settings(), form: this.form });
  }

  close() {
    this.isWanted = false;
    clearTimeout(this.timer);
    sockets.delete(this);
    this.say("");
    this.socket.close();
  }
}

// A picture with its name, its speed, and its buttons.
class Panel {
  constructor(place, name) {
    this.name = name;
    this.figure = find("#panel").content.firstElementChild.cloneNode(true);
    this.canvas = find("canvas", this.figure);
    find(".name", this.figure).textContent = name;
    this.canvas.setAttribute("aria-label", `Saliency of ${name}`);
    this.button(".save-picture", () => this.canvas.toBlob((blob) => save(blob, `${name}.jpg`), "image/jpeg", 0.95));
    this.button(".save-map", () => this.askMap());
    place.append(this.figure);
  }

  button(kind, pressed) {
    const button = find(kind, this.figure);
    button.setAttribute("aria-label", `${button.textContent} of ${this.name}`);
    button.onclick = pressed;
  }

  // Has the next result given as a map, for once; `again` sends what stands still once more.
  askMap() {
    this.connection.form = "png";
    this.connection.tellLook();
    this.connection.wake();
    this.again?.();
  }

  // Takes a result. While one is being drawn, only the newest of the others is kept.
  async show(header, payload) {
    if (header.form === "png") {
      if (this.connection.form === "png") save(payload, `${this.name}_map.png`);
      this.connection.form = "jpeg";
      this.connection.tellLook();
      return;
    }
    this.waiting = [header, payload];
    if (this.isDrawing) return;
    this.isDrawing = true;
    while (this.waiting) {
      const [facts, picture] = this.waiting;
      this.waiting = null;
      await this.draw(facts, picture).catch(({ message }) => this.connection.say(`A picture can't be shown (${message}).`));
    }
    this.isDrawing = false;
  }

  async draw(facts, picture) {
    const bitmap = await createImageBitmap(picture);
    if (this.canvas.width !== bitmap.width) this.canvas.width = bitmap.width;
    if (this.canvas.height !== bitmap.height) this.canvas.height = bitmap.height;
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    this.canvas.dataset.frame = facts.frame;
    find(".speed", this.figure).textContent =
      `${facts.fps.toFixed(1)} fps, ${facts.latency_p50_ms.toFixed(0)} ms` +
      ` (99 %: ${facts.latency_p99_ms.toFixed(0)} ms), ${facts.dropped} dropped`;
  }

  state(text) {
    const place = find(".state", this.figure);
    if (place.textContent !== text) place.textContent = text;
  }
}

function watch({ number, name }) {
  const panel = new Panel(find("#sources"), name);
  panel.frames = 0; // of the source, when the last result came
  const ask = () => panel.connection.tell({ type: "next" });
  panel.connection = new Connection(`/api/sources/${number}/live`, {
    opened: () => Array.from({ length: ASKED }, ask),
    answered: (header, payload) => {
      ask();
      panel.frames = header.frames;
      panel.show(header, payload);
    },
    ended: (reason) => panel.state(reason),
  });
  return panel;
}

// The visitor's camera or file: frames go out, and each result is shown as it comes.
class Own {
  constructor(name) {
    this.panel = new Panel(find("#own"), name);
    this.small = document.createElement("canvas");
    this.sent = this.answered = 0;
    this.connection = this.panel.connection = new Connection("/api/stream", {
      opened: () => {
        this.sent = this.answered = 0;
        this.still?.();
      },
      answered: (header, payload) => {
        this.answered = header.frame;
        this.panel.show(header, payload);
      },
      refused: (frame) => {
        this.answered = frame;
      },
      rests: () => Boolean(this.still),
    });
  }

  // Sends what an image or video shows now. One that can't be sent is told, and the next may be.
  async send(picture, width, height) {
    await this.encodeAndSend(picture, width, height).catch(({ message }) => this.connection.say(`A frame can't be sent (${message}).`));
  }

  async encodeAndSend(picture, width, height) {
    const share = Math.min(1, SENT_SIDE / Math.max(width, height));
    this.small.width = Math.max(1, Math.round(width * share));
    this.small.height = Math.max(1, Math.round(height * share));
    this.small.getContext("2d").drawImage(picture, 0, 0, this.small.width, this.small.height);
    const blob = await new Promise((done) => this.small.toBlob(done, "image/jpeg", 0.9));
    if (!blob || !this.connection.isOpen) return;
    if (this.sent === this.answered) this.connection.heardMs = performance.now(); // an answer is due from now on
    this.sent += 1;
    this.connection.socket.send(blob);
  }

  image(bitmap) {
    this.still = () => {
      this.connection.tell({ type: "reset" });
      this.send(bitmap, bitmap.width, bitmap.height);
    };
    this.panel.again = this.still;
    if (this.connection.isOpen) this.still();
  }

  video(video) {
    this.element = video;
    video.addEventListener("seeked", () => this.anew()); // also where a loop begins again
    const next = () => {
      if (this.isOver) return;
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(frame);
      else requestAnimationFrame(frame);
    };
    const frame = async () => {
      const isFree = this.connection.isOpen && this.sent - this.answered < ASKED;
      if (isFree && video.videoWidth) await this.send(video, video.videoWidth, video.videoHeight);
      next();
    };
    next();
  }

  anew() {
    this.connection.tell({ type: "reset" });
  }

  close() {
    this.isOver = true;
    this.stream?.getTracks().forEach((track) => track.stop());
    this.element?.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.connection.close();
    this.panel.figure.remove();
  }
}

let own = null;

function begin(name) {
  end();
  own = new Own(name);
  for (const id of ["#stop", "#anew"]) find(id).hidden = false;
  return own;
}

function end() {
  own?.close();
  own = null;
  say("");
  ["#stop", "#anew", "#cameras"].forEach(hide);
}

function hide(id) {
  const element = find(id);
  if (element.contains(document.activeElement)) find("#camera").focus();
  element.hidden = true;
}

// Ends what is shown, if it still is, and says why.
function giveUp(mine, why) {
  if (own !== mine) return;
  end();
  say(why);
}

function newVideo() {
  return Object.assign(document.createElement("video"), { muted: true, playsInline: true, loop: true });
}

const WHY_NO_CAMERA = {
  NotAllowedError: "The browser may not use the camera; allow it in the address bar.",
  NotFoundError: "No camera was found; connect one, or choose a file.",
  NotReadableError: "The camera can't be read; another program may be using it.",
};

async function useCamera(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) {
    say("Browsers give a camera to pages over https or from localhost only; choose a file, or see --certificate.");
    return;
  }
  const wanted = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
  end();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { ...wanted, width: SENT_SIDE }, audio: false });
  } catch (error) {
    say(WHY_NO_CAMERA[error.name] || `The camera can't be used (${error.message}).`);
    return;
  }
  const mine = begin("your camera");
  mine.stream = stream;
  const [track] = stream.getVideoTracks();
  track.onended = () => giveUp(mine, "The camera has stopped; connect it again, or choose a file.");
  const video = newVideo();
  video.srcObject = stream;
  try {
    await video.play();
  } catch (error) {
    giveUp(mine, `The camera can't be shown (${error.message}).`);
    return;
  }
  mine.video(video);
  await listCameras();
}

// Offers the cameras that there are, once one is in use: before, browsers tell no names.
async function listCameras() {
  if (!own?.stream) return;
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const chosen = own?.stream?.getVideoTracks()[0].getSettings().deviceId;
  const options = cameras.map(({ deviceId, label }) => new Option(label, deviceId, false, deviceId === chosen));
  find("#cameras select").replaceChildren(...options);
  if (own?.stream && cameras.length > 1) find("#cameras").hidden = false;
  else hide("#cameras");
}

async function changeCamera({ target }) {
  await useCamera(target.value);
  if (!find("#cameras").hidden) target.focus(); // it was hidden meanwhile
}

async function useFile(file) {
  if (file.type.startsWith("image/")) {
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (bitmap) begin(file.name).image(bitmap);
    else say(`This browser can't read ${file.name}.`);
    return;
  }
  const mine = begin(file.name);
  const video = newVideo();
  mine.url = video.src = URL.createObjectURL(file);
  video.onerror = () => giveUp(mine, `This browser can't play ${file.name}.`);
  await video.play().catch(() => {});
  mine.video(video);
}

function listenToLook() {
  look.addEventListener("submit", (event) => event.preventDefault());
  look.addEventListener("input", () => {
    const shown = `${Math.round(100 * look.elements.opacity.value)} %`;
    find("#opacity").textContent = shown;
    look.elements.opacity.setAttribute("aria-valuetext", shown);
    for (const connection of sockets) {
      connection.tellLook();
      connection.wake();
    }
    own?.still?.();
  });
}

function listenToOwn() {
  find("#camera").onclick = () => useCamera();
  find("#cameras select").onchange = changeCamera;
  navigator.mediaDevices?.addEventListener("devicechange", listCameras);
  find("#file").onchange = ({ target }) => target.files[0] && useFile(target.files[0]).then(() => (target.value = ""));
  find("#anew").onclick = () => own?.anew();
  find("#stop").onclick = end;
  const place = document.body;
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    find("#own").classList.add("over");
  });
  place.addEventListener("dragleave", () => find("#own").classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    find("#own").classList.remove("over");
    if (event.dataTransfer.files[0]) useFile(event.dataTransfer.files[0]);
  });
}

async function status() {
  const answer = await fetch("/api/status", { signal: AbortSignal.timeout(SILENT_MS) });
  if (answer.status === 401) {
    location.reload(); // the cookie has ended: it asks for the token
    return new Promise(() => {}); // nothing more is said here
  }
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

async function poll(panels) {
  let facts;
  try {
    facts = await status();
  } catch {
    say(UNANSWERED);
    for (const connection of sockets) connection.renew();
    return;
  }
  unsay(UNANSWERED);
  if (own?.sent > own?.answered) own.connection.renew(STUCK_MS);
  facts.sources.forEach(({ state, problem, frames }, number) => {
    const panel = panels[number];
    panel?.state(problem || (state === "playing" ? "" : state));
    if (state !== "playing" || !panel) return;
    if (panel.connection.isResting) panel.connection.wake();
    else if (frames !== panel.frames) panel.connection.renew(); // the source goes on, and nothing comes here
  });
}

async function start() {
  listenToLook();
  listenToOwn(); // a file that is chosen before the server has answered is not lost
  const facts = await status();
  for (const [name, values, chosen] of [
    ["view", facts.views, "overlay"],
    ["colormap", facts.colormaps, "jet"],
    ["normalise", facts.normalisations, "frame"],
  ]) {
    look.elements[name].replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
  }
  const untrained = facts.trained ? "" : " (untrained: its maps say nothing)";
  find("#facts").textContent = `${facts.model}${untrained}, ${facts.backend}`;
  const panels = facts.sources.map(watch);
  find("#sources").hidden = !panels.length;
  setInterval(() => document.hidden || poll(panels), POLL_MS);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const connection of sockets) if (!connection.isResting) connection.wake();
    poll(panels);
  });
}

start().catch((error) => say(`The server does not answer (${error.message}); load the page again.`));
