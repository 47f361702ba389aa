// The page: shows what the server tells, and asks it for all else. Text is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const kept = {
  get: (name, otherwise) => JSON.parse(localStorage.getItem(`partcraft.${name}`) ?? "null") ?? otherwise,
  set: (name, value) => localStorage.setItem(`partcraft.${name}`, JSON.stringify(value)),
};

/** An element with properties, attributes (names with a dash, and role), handlers (on…) and children. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "colour") element.style.setProperty("--part", value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts new children into an element; what had the focus has it again. */
function refill(container, ...children) {
  const all = () => [...container.querySelectorAll("button, a, input")];
  const at = all().indexOf(document.activeElement);
  container.replaceChildren(...children);
  if (at >= 0) all().slice(0, at + 1).findLast((element) => !element.disabled)?.focus();
}

/** What the server answers; throws its sentence. */
async function ask(path, method = "GET", body = undefined) {
  const isJson = body !== undefined && !(body instanceof Blob) && typeof body !== "string";
  const headers = isJson ? { "Content-Type": "application/json" } : {};
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: isJson ? JSON.stringify(body) : body });
  } catch {
    throw new Error("The server does not answer: is `kedro compose` still running?");
  }
  const content = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(content?.sentence ?? `This did not work (${answer.status}).`);
  return content;
}

let studio; // what /studio tells
let makings = []; // of this board, the oldest first
const now = {
  code: [], locked: new Set(), part: 1, like: null, // like: a variant whose neighbours are listed
  seed: 0, noise: "0", sampling: {}, shown: null, // shown: the making on the stage
  number: 0, view: "picture", job: null, // job: what is being drawn, its place in the queue and its progress
};
/** 32 digits; crypto.randomUUID is there on a machine's own address alone. */
const randomId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const board = kept.get("board", randomId());
kept.set("board", board);

// ---- telling ------------------------------------------------------------------------------------------------------

function tell(...what) {
  $("status").className = "";
  $("status").replaceChildren(...what);
}

function tellWrong(error) {
  tell(error.message);
  $("status").className = "wrong";
}

/** Runs what may fail with a sentence. */
const trying = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    tellWrong(error);
  }
};

// ---- slots and words ----------------------------------------------------------------------------------------------

const crop = (part, variant) => `/crops/${part}/${variant}.jpg?of=${studio.parts_version}`;
const tokenName = (part, variant) => `${studio.parts[part].name} ${variant}`;

function showSlots() {
  refill($("slots"), ...studio.parts.map((part, number) => {
    const variant = now.code[number];
    const isLocked = now.locked.has(number);
    const look = variant === null
      ? el("span", { className: "open" }, "left to the model")
      : el("img", { src: crop(number, variant), alt: tokenName(number, variant) });
    return el("li", { colour: part.colour, className: number === now.part ? "active" : "" },
      el("button", {
        type: "button", className: "slot", title: `Choose ${part.name}`, onclick: () => choosePart(number, true),
      }, look, el("span", { className: "name" }, part.name)),
      el("div", { className: "tools" },
        el("button", {
          type: "button", "aria-pressed": isLocked, "aria-label": `Lock ${part.name}`, title: "Lock (L)",
          onclick: () => lock(number),
        }, isLocked ? "locked" : "lock"),
        el("button", {
          type: "button", "aria-label": `Leave ${part.name} to the model`, title: "Leave it to the model",
          disabled: variant === null, onclick: () => setCode(now.code.with(number, null)),
        }, "×")));
  }));
}

function lock(part) {
  now.locked.has(part) ? now.locked.delete(part) : now.locked.add(part);
  showSlots();
  keepBench();
}

function setCode(code) {
  now.code = code;
  showSlots();
  showVariants();
  showPrompt();
}

const words = () => ({ before: $("before").value, code: now.code, after: $("after").value });

let asked = 0; // prompts asked for: an answer that comes late is of an old one

const showPrompt = trying(async () => {
  const number = ++asked;
  $("prompt").ariaBusy = "true";
  keepBench();
  const prompt = await ask("/prompt", "POST", words());
  if (number !== asked) return;
  $("prompt").textContent = prompt;
  $("prompt").ariaBusy = "false";
});

/** What is chosen and not yet drawn outlives a reload. */
function keepBench() {
  const { code, seed, noise } = now;
  kept.set("bench", { ...words(), code, seed, noise, locked: [...now.locked] });
}

const shuffle = trying(async () => {
  $("prompt").ariaBusy = "true";
  setCode(await ask("/shuffle", "POST", { code: now.code, locked: [...now.locked] }));
});

function newNoise() {
  [now.seed, now.noise] = [crypto.getRandomValues(new Uint32Array(1))[0], "0"];
  $("seed").value = now.seed;
  keepBench();
  tell("New noise: the next pictures start elsewhere.");
}

// ---- palette ------------------------------------------------------------------------------------------------------

function showTabs() {
  refill($("tabs"), ...studio.parts.map((part, number) => el("button", {
    type: "button", role: "tab", id: `tab-${number}`, colour: part.colour, "aria-controls": "choices",
    "aria-selected": number === now.part, tabIndex: number === now.part ? 0 : -1, onclick: () => choosePart(number),
  }, part.name)));
  $("choices").setAttribute("aria-labelledby", `tab-${now.part}`);
}

/** Arrows, Home and End in the tabs: the next one is chosen, and the last is beside the first. */
function walkTabs(key) {
  const tabs = [...$("tabs").children];
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[key];
  if (at < 0 || to === undefined) return false;
  choosePart((to + tabs.length) % tabs.length);
  $("tabs").children[now.part].focus();
  return true;
}

function choosePart(number, goes = false) {
  [now.part, now.like] = [number, null];
  showTabs();
  showSlots();
  showVariants();
  overlay();
  const small = matchMedia("(max-width: 760px)").matches;
  if (goes && small) $("palette").scrollIntoView({ behavior: "smooth" });
}

const seenSoon = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      entry.target.src = entry.target.dataset.src;
      seenSoon.unobserve(entry.target);
    }
  }
}, { rootMargin: "200px" });

function showVariants() {
  const all = studio.parts[now.part].variants;
  const wanted = $("search").value.trim().toLowerCase();
  const found = now.like
    ? now.like.order.map((number) => all.find((variant) => variant.number === number))
    : all.filter((variant) => !wanted || variant.classes.some((name) => name.toLowerCase().includes(wanted)));
  $("like-off").hidden = !now.like;
  if (now.like) $("like-off").textContent = `like ${tokenName(now.part, now.like.number)} ×`;
  $("search").hidden = Boolean(now.like) || all.every((variant) => !variant.classes.length);
  $("variants").setAttribute("aria-label", `Variants of ${studio.parts[now.part].name}`);
  const chosen = now.code[now.part];
  refill($("variants"), ...found.map((variant, place) => {
    const image = el("img", { alt: "" });
    image.dataset.src = crop(now.part, variant.number);
    seenSoon.observe(image);
    const isChosen = variant.number === chosen;
    return el("button", {
      type: "button", role: "option", "aria-selected": isChosen, tabIndex: isChosen || place === 0 ? 0 : -1,
      "aria-label": `${tokenName(now.part, variant.number)}, in ${variant.count} pictures`,
      title: told(variant),
      onclick: () => take(variant.number),
    }, image, el("span", {}, variant.count));
  }));
  if (!found.length) $("variants").append(el("p", {}, wanted ? `No variant is of a class like “${wanted}”.` : "No variants."));
  showDetail(all.find((variant) => variant.number === chosen));
}

const take = (variant) => setCode(now.code.with(now.part, variant));

function showDetail(variant) {
  if (!variant) {
    $("detail").replaceChildren(el("p", {}, `Each ${studio.parts[now.part].name} is a look that pictures have; the number says how many.`));
    return;
  }
  // Of an adapter alone there are crops, and no pictures that they are cut from.
  const whole = variant.id && encodeURIComponent(variant.id);
  const named = tokenName(now.part, variant.number);
  $("detail").replaceChildren(
    whole
      ? el("img", { src: `/dataset/${whole}.jpg`, alt: `The picture in which ${named} is most typical` })
      : el("img", { src: crop(now.part, variant.number), alt: `${named}, where it is most typical` }),
    el("div", {},
      el("p", {}, told(variant)),
      el("button", {
        type: "button", onclick: trying(async () => {
          now.like = { number: variant.number, order: await ask(`/like/${now.part}/${variant.number}`) };
          showVariants();
        }),
      }, "More like this"),
      whole && el("button", { type: "button", onclick: trying(async () => takeAll(await ask(`/dataset/${whole}/code`))) }, "All parts of this picture")));
}

function told(variant) {
  const kinds = variant.classes.length ? `, most of ${variant.classes.join(", ")}` : "";
  return `${tokenName(now.part, variant.number)}: ${variant.count} pictures${kinds}`;
}

/** All parts of a picture, but for those that are locked. */
function takeAll(code) {
  setCode(now.code.map((variant, part) => now.locked.has(part) ? variant : code[part]));
}

function walk(key) {
  const options = [...$("variants").querySelectorAll("[role=option]")];
  const at = options.indexOf(document.activeElement);
  if (at < 0 || !options.length) return false;
  const across = getComputedStyle($("variants")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: options.length - 1 - at }[key];
  if (step === undefined) return false;
  options[Math.min(Math.max(at + step, 0), options.length - 1)].focus();
  return true;
}

// ---- a picture of one's own ---------------------------------------------------------------------------------------

const takeFile = trying(async (file) => {
  tell(`Reading ${file.name} …`);
  const found = await ask("/picture", "POST", file);
  if (found.recipe) return restore(found);
  showDonor(found, file.name);
  tell(`The parts of ${file.name} are found: take what you like.`);
  $("lent").scrollIntoView({ block: "nearest" });
});

function showDonor(found, name) {
  const rows = studio.parts.map((part, number) => {
    const variant = found.code[number];
    if (variant === null) return el("tr", {}, el("td"), el("td", { colSpan: 3 }, `no ${part.name} found`));
    return el("tr", {},
      el("td", {}, el("img", { src: crop(number, variant), alt: tokenName(number, variant) })),
      el("td", {}, tokenName(number, variant)),
      el("td", { title: "Cosine: 1 if it is just what this variant stands for" },
        el("meter", { min: 0, max: 1, low: .6, high: .85, optimum: 1, value: found.cosine[number] }), ` ${found.cosine[number].toFixed(2)}`),
      el("td", {}, el("button", { type: "button", "aria-label": `Take ${part.name}`, onclick: () => setCode(now.code.with(number, variant)) }, "take")));
  });
  const canvas = el("canvas");
  $("lent").replaceChildren(
    el("div", { className: "picture" }, el("img", { src: found.shown, alt: name }), canvas),
    el("table", {}, el("tbody", {}, ...rows)),
    el("button", { type: "button", onclick: () => takeAll(found.code) }, "Take all"));
  drawLabels(canvas, found.label_map);
}

// ---- recipes ------------------------------------------------------------------------------------------------------

function restore(found) {
  restoreFrom(found);
  $("fine-steps").value = found.recipe.sampling.steps;
  now.shown = null; // it comes from elsewhere
  showTree();
  tell(found.exact ? "The recipe is restored: Fine makes this picture again."
    : "The recipe is restored, but for the order of its words and tokens: Fine makes a picture like it.");
}

function linkOf(recipe) {
  const bytes = new TextEncoder().encode(JSON.stringify(recipe));
  return `${location.origin}/?recipe=${btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_")}`;
}

const followLink = trying(async (coded) => {
  let text;
  try {
    const bytes = Uint8Array.from(atob(coded.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    text = new TextDecoder().decode(bytes);
  } catch {
    throw new Error("The link's recipe is broken: copy the whole link.");
  }
  restore(await ask("/recipe", "POST", text));
});

// ---- drawing ------------------------------------------------------------------------------------------------------

/** gradio sends what changed since the last message as a list of edits. */
function edited(before, edits) {
  let value = structuredClone(before);
  for (const [deed, path, content] of edits) {
    if (!path.length) { value = content; continue; }
    let place = value;
    for (const key of path.slice(0, -1)) place = place[key];
    const last = path.at(-1);
    if (deed === "delete") Array.isArray(place) ? place.splice(last, 1) : delete place[last];
    else if (deed === "append") place[last] += content;
    else place[last] = content;
  }
  return value;
}

async function draw(steps, noises) {
  if (now.job) return;
  if (studio.missing) throw new Error(studio.missing);
  const session = randomId();
  const wish = {
    board, ...words(), negative: $("negative").value, seed: now.seed, noises, steps,
    guidance_scale: Number($("guidance").value), guidance_rescale: now.sampling.guidance_rescale,
    scheduler: now.sampling.scheduler, parent: now.shown?.id ?? null,
  };
  now.job = { session, bar: el("progress", { max: 1, "aria-label": "Progress" }), text: el("span", { "aria-hidden": "true" }) };
  tell(now.job.bar, now.job.text, el("button", { type: "button", onclick: cancel }, "Cancel"));
  $("stage").classList.add("busy");
  showButtons();
  try {
    const body = { data: [wish], fn_index: 0, session_hash: session };
    now.job.event = (await ask("/gradio_api/queue/join", "POST", body)).event_id;
    const making = await listen(session);
    if (!making) return tell("Cancelled.");
    makings.push(making);
    show(making);
    const asked = making.pictures.flatMap((picture) => Object.values(picture.arrived));
    tell(asked.length ? `${asked.filter(Boolean).length} of ${asked.length} parts arrived.` : "Made.");
  } finally {
    now.job = null;
    $("stage").classList.remove("busy");
    showButtons();
  }
}

/** Waits for the job's end; returns what was made, or null if it was cancelled. */
function listen(session) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/gradio_api/queue/data?session_hash=${session}`);
    let data = null;
    const end = (settle, value) => { source.close(); settle(value); };
    now.job.cancel = () => end(resolve, null);
    source.onerror = () => end(reject, new Error("The server does not answer: is `kedro compose` still running?"));
    source.onmessage = ({ data: text }) => {
      const message = JSON.parse(text);
      if (message.msg === "estimation") {
        tellProgress(message.rank > 0 ? `In line, ${message.rank} before you …` : "Next in line …", null);
      } else if (message.msg === "process_starts") {
        tellProgress("Beginning …", null);
      } else if (message.msg === "process_generating" && message.success) {
        const news = message.output.data[0];
        data = Array.isArray(news) ? edited(data, news) : news;
        if (data.step) tellProgress(`Step ${data.step} of ${data.of}`, data.step / data.of);
      } else if (message.msg === "process_completed") {
        if (!message.success) end(reject, new Error(message.output.error ?? "This could not be drawn."));
        else end(resolve, message.output.data?.[0] ?? (data?.pictures ? data : null));
      } else if (message.msg === "unexpected_error") end(reject, new Error(message.message));
    };
  });
}

function tellProgress(text, share) {
  if (!now.job) return;
  now.job.text.textContent = text;
  if (share !== null) now.job.bar.value = share;
}

function cancel() {
  if (!now.job?.event) return;
  const { session, event } = now.job;
  ask("/gradio_api/cancel", "POST", { session_hash: session, fn_index: 0, event_id: event }).catch(() => {});
  now.job.cancel?.();
}

const noises = () => $("four").checked ? [now.noise, ...["0", "1", "2", "3"].filter((noise) => noise !== now.noise).slice(0, 3)] : [now.noise];
const make = trying(() => draw(Number($("rough-steps").value), noises()));

/** In more steps: one picture again, or what is chosen now. */
const fine = trying((only = null) => {
  if (only) {
    restoreFrom(only);
    return draw(Number($("fine-steps").value), [only.recipe.noise]);
  }
  return draw(Number($("fine-steps").value), noises());
});

function showButtons() {
  for (const id of ["make", "fine"]) $(id).disabled = Boolean(now.job) || Boolean(studio.missing);
}

// ---- stage --------------------------------------------------------------------------------------------------------

const pathOf = (making, number) => `/boards/${board}/${making.id}/${number}.png`;

/** Brings back what a picture was made from: a making's, or a recipe's. */
function restoreFrom(picture) {
  const { sampling, seed, noise } = picture.recipe;
  now.sampling = sampling;
  $("before").value = picture.before;
  $("after").value = picture.after;
  $("negative").value = sampling.negative_prompt;
  $("guidance").value = sampling.guidance_scale;
  $("seed").value = now.seed = seed;
  now.noise = noise;
  setCode(picture.code);
}

function show(making) {
  if (now.shown?.id !== making.id) now.number = 0;
  now.shown = making;
  showTree();
  $("stage").classList.toggle("single", making.pictures.length === 1);
  refill($("stage"), ...making.pictures.map((picture, number) => {
    const ticks = Object.entries(picture.arrived).map(([part, arrived]) => {
      const { name, colour } = studio.parts[part];
      const found = picture.found[part] === null ? "not seen" : `seen ${picture.found[part]}`;
      return el("li", { className: arrived ? "yes" : "no", colour, title: arrived ? "It arrived" : `Asked for ${tokenName(part, picture.code[part])}` },
        el("b", {}, arrived ? "✓" : "✗"), arrived ? ` ${name}` : ` ${name}: ${found}`);
    });
    const { recipe } = picture;
    return el("figure", { className: number === now.number ? "chosen" : "" },
      el("button", {
        type: "button", className: "picture", title: "Go on from this one", "aria-pressed": number === now.number,
        onclick: () => { now.number = number; show(making); if (!making.foreign) restoreFrom(picture); },
      }, el("img", { src: pathOf(making, number), alt: `Drawn from ${recipe.prompt}` }), el("canvas")),
      el("figcaption", {},
        el("ul", { className: "ticks", "aria-label": "What arrived" }, ...ticks),
        el("div", { className: "deeds" },
          el("button", {
            type: "button", className: "star", "aria-pressed": picture.starred, title: "Star", "aria-label": "Star",
            onclick: trying(() => star(making, number, !picture.starred)),
          }, picture.starred ? "★" : "☆"),
          el("button", { type: "button", title: "In more steps", disabled: making.foreign, onclick: () => fine(picture) }, "Fine"),
          el("a", { href: pathOf(making, number), download: `partcraft-${making.id.slice(0, 15)}-${number}.png` }, "Save"),
          el("button", { type: "button", onclick: trying(async () => copy(linkOf(recipe), "The link is copied: it brings this recipe back.")) }, "Link"),
          el("button", { type: "button", title: "For a notebook", onclick: trying(async () => copy(await ask("/python", "POST", recipe), "Python is copied.")) }, "Python"),
          el("span", { className: "switch" }, `${recipe.sampling.steps} steps`))));
  }));
  overlay();
}

async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    tell(done);
  } catch { // without a secure context, or without leave
    const field = el("input", { value: text, readOnly: true });
    tell("Copy this: ", field);
    field.select();
  }
}

async function star(making, number, starred) {
  const changed = await ask(`/boards/${board}/${making.id}/${number}/star`, "PUT", { starred });
  makings = makings.map((other) => other.id === changed.id ? changed : other);
  show(changed);
}

function showViews() {
  const views = { picture: "Picture", parts: "Parts found", attention: "Where the token looked" };
  refill($("views"), ...Object.entries(views).map(([view, title]) => el("button", {
    type: "button", role: "radio", "aria-checked": view === now.view,
    onclick: () => { now.view = view; showViews(); overlay(); },
  }, title)));
}

/** Draws over the pictures on the stage what is to be seen of them. */
function overlay() {
  const canvases = $("stage").querySelectorAll("canvas");
  now.shown?.pictures.forEach((picture, number) => {
    const canvas = canvases[number];
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    if (now.view === "parts") drawLabels(canvas, picture.label_map);
    if (now.view === "attention" && picture.attention[now.part]) drawHeat(canvas, picture.attention[now.part]);
  });
}

const bytesOf = (grid) => Uint8Array.from(atob(grid.bytes), (letter) => letter.charCodeAt(0));
const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

function drawLabels(canvas, grid) {
  const colours = studio.parts.map((part) => rgb(part.colour));
  paint(canvas, grid, "grid", (label) => label ? [...colours[label], 255] : [0, 0, 0, 90]);
}

/** Clear where the token looked, dark where it did not. */
function drawHeat(canvas, grid) {
  paint(canvas, grid, "heat", (value) => [15, 15, 15, Math.round((255 - value) * .88)]);
}

function paint(canvas, grid, kind, colourOf) {
  const values = bytesOf(grid);
  canvas.className = kind;
  [canvas.width, canvas.height] = [grid.width, values.length / grid.width];
  const image = new ImageData(canvas.width, canvas.height);
  values.forEach((value, at) => image.data.set(colourOf(value), 4 * at));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// ---- history ------------------------------------------------------------------------------------------------------

function showTree() {
  const onlyStars = $("only-stars").checked;
  const wanted = makings.filter((making) => !onlyStars || making.pictures.some((picture) => picture.starred));
  const there = new Set(wanted.map((making) => making.id));
  const childrenOf = (id) => wanted.filter((making) => (there.has(making.parent) ? making.parent : null) === id);
  // A line of single children stays at its depth; only where it forks it goes deeper.
  const branch = (makings) => el("ul", {}, ...makings.flatMap((making) => {
    const items = [node(making)];
    let children = childrenOf(making.id);
    while (children.length === 1) {
      items.push(node(children[0]));
      children = childrenOf(children[0].id);
    }
    return children.length ? [...items, el("li", {}, branch(children))] : items;
  }));
  $("tree").replaceChildren(wanted.length ? branch(childrenOf(null)) : el("p", { className: "switch" }, "What you make is kept here."));
}

function node(making) {
  const many = making.pictures.length > 1;
  const stars = making.pictures.some((picture) => picture.starred) ? "★ " : "";
  return el("li", { className: `node${many ? " many" : ""}${making.id === now.shown?.id ? " shown" : ""}` },
    el("button", { type: "button", className: "go", title: making.pictures[0].recipe.prompt, onclick: () => goTo(making) },
      el("span", { className: "thumbs" }, ...making.pictures.map((_, number) => el("img", { src: pathOf(making, number), alt: "", loading: "lazy" }))),
      el("span", { className: "change" }, stars + making.change)),
    el("button", { type: "button", title: "Compare with what is on the stage", "aria-label": "Compare", onclick: () => compare(now.shown, making) }, "⇄"),
    el("button", { type: "button", title: "Delete", "aria-label": "Delete", onclick: trying(() => remove(making)) }, "×"));
}

function goTo(making) {
  show(making);
  if (making.foreign) tell("This was made with another adapter: look at it, but nothing goes on from it.");
  else restoreFrom(making.pictures[0]);
}

async function remove(making) {
  if (!confirm(`Delete “${making.change}” and its ${making.pictures.length > 1 ? `${making.pictures.length} pictures` : "picture"}?`)) return;
  await ask(`/boards/${board}/${making.id}`, "DELETE");
  makings = (await ask(`/boards/${board}`)) ?? [];
  tell("Deleted.");
  if (now.shown?.id !== making.id) return showTree();
  makings.length ? show(makings.at(-1)) : showEmpty();
}

function compare(one, other) {
  if (!one || one.id === other.id) return tell("Show one making, then compare another with it.");
  const [a, b] = [one.pictures[now.number], other.pictures[0]];
  const look = (part, variant) => variant === null ? "left to the model" : el("img", { src: crop(part, variant), alt: tokenName(part, variant) });
  const differences = studio.parts.flatMap((part, number) => a.code[number] === b.code[number] ? [] :
    [el("span", { className: "swap" }, `${part.name}: `, look(number, a.code[number]), " → ", look(number, b.code[number]))]);
  if (a.before !== b.before || a.after !== b.after) differences.push(`words: “${a.before} … ${a.after}” → “${b.before} … ${b.after}”`);
  if (a.recipe.seed !== b.recipe.seed || a.recipe.noise !== b.recipe.noise) differences.push("other noise");
  if (a.recipe.sampling.steps !== b.recipe.sampling.steps) differences.push(`steps: ${a.recipe.sampling.steps} → ${b.recipe.sampling.steps}`);
  $("compare").replaceChildren(
    el("div", { className: "two" }, ...[[one, now.number], [other, 0]].map(([making, number]) => el("img", { src: pathOf(making, number), alt: making.pictures[number].recipe.prompt }))),
    el("ul", {}, ...(differences.length ? differences : ["nothing differs"]).map((text) => el("li", {}, text))),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
  $("compare").showModal();
}

function showEmpty() {
  now.shown = null;
  showTree();
  const [first] = studio.missing ? [studio.missing] : ["Choose parts, or shuffle, then Make."];
  $("stage").classList.remove("single");
  $("stage").replaceChildren(el("div", { className: "empty" }, first));
}

// ---- beginning ----------------------------------------------------------------------------------------------------

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") return cancel();
  if (event.key === "Enter" && event.target.closest("#words")) return make();
  if (event.target.closest("input, dialog, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (walk(event.key) || walkTabs(event.key)) return event.preventDefault();
  const isFree = !event.target.closest("button, a");
  const deeds = { l: () => lock(now.part), s: shuffle, n: newNoise, f: () => fine(), "?": () => $("keys").showModal() };
  if (event.key === "Enter" && isFree) make();
  else if (/^[1-9]$/.test(event.key) && studio.parts[event.key - 1]) {
    choosePart(event.key - 1);
    $("variants").querySelector("[tabindex='0']")?.focus();
  } else deeds[event.key.toLowerCase()]?.();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  kept.set("theme", theme);
}

function connect() {
  $("make").onclick = make;
  $("fine").onclick = () => fine();
  $("shuffle").onclick = shuffle;
  $("noise").onclick = newNoise;
  $("own").onclick = () => $("file").click();
  $("file").onchange = () => { takeFile($("file").files[0]); $("file").value = ""; };
  $("search").oninput = showVariants;
  $("like-off").onclick = () => { now.like = null; showVariants(); };
  $("only-stars").onchange = showTree;
  $("before").oninput = $("after").oninput = showPrompt;
  $("seed").onchange = () => { now.seed = Math.max(0, Math.trunc(Number($("seed").value))) || 0; now.noise = "0"; keepBench(); };
  $("four").onchange = () => kept.set("four", $("four").checked);
  $("help").onclick = () => $("keys").showModal();
  $("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  document.addEventListener("keydown", onKey);
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("dropping").hidden = false; });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("dropping").hidden = true; });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("dropping").hidden = true;
    if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });
}

async function begin() {
  setTheme(kept.get("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  studio = await ask("/studio");
  document.title = `PartCraft: ${studio.title}`;
  $("title").textContent = studio.title;
  $("adapter").textContent = studio.adapter ? `adapter ${studio.adapter}` : studio.missing;
  $("guidance").value = studio.sampling.guidance_scale;
  $("negative").value = studio.sampling.negative;
  $("fine-steps").value = Math.max(studio.sampling.steps, 20);
  $("rough-steps").max = $("fine-steps").max = studio.most_steps;
  $("four").checked = kept.get("four", false);
  now.part = Math.min(1, studio.parts.length - 1);
  const bench = kept.get("bench", null);
  const isThere = (variant, part) => variant === null || studio.parts[part].variants.some((other) => other.number === variant);
  const fits = bench?.code.length === studio.parts.length && bench.code.every(isThere);
  now.code = fits ? bench.code : studio.parts.map((part) => part.variants[0]?.number ?? null);
  if (fits) {
    [$("before").value, $("after").value, now.seed, now.noise] = [bench.before, bench.after, bench.seed, bench.noise];
    now.locked = new Set(bench.locked);
  }
  $("seed").value = now.seed;
  connect();
  showTabs();
  showViews();
  setCode(now.code);
  showButtons();
  makings = await ask(`/boards/${board}`);
  makings.length ? show(makings.at(-1)) : showEmpty();
  const recipe = new URLSearchParams(location.search).get("recipe");
  if (recipe) await followLink(recipe);
  document.body.dataset.ready = "yes";
}

begin().catch(tellWrong);
