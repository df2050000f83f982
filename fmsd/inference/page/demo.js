// Sends a file, follows its job (docs/verbs/demo.md), and shows the result in this page.

const part = (id) => document.getElementById(id);
const PREDICTIONS = "api/predictions";
const EVERY = 400;  // milliseconds between two looks at a job
let limit = Infinity;
let current = null;  // { request, id } of the file that is sent or scored

const pause = () => new Promise((resolve) => { setTimeout(resolve, EVERY); });
const percent = (share) => `${Math.floor(100 * share)} %`;

function show(step, detail, share) {
  if (part("step").textContent !== step) part("step").textContent = step;  // it is read aloud
  part("detail").textContent = detail;
  part("bar").value = share;
}

function fail(text) {
  part("problem").textContent = text;
  part("work").hidden = true;
  current = null;
}

async function sentenceOf(response, body) {
  try { return JSON.parse(body ?? await response.text()).error; } catch { return `The page answers ${response.status}.`; }
}

function send(file, job) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();  // fetch does not tell how much is sent
    const form = new FormData();
    form.append("file", file);
    request.upload.onprogress = (event) => show("Sending", percent(event.loaded / event.total), event.loaded / event.total);
    request.onload = async () => {
      if (request.status === 202) resolve(JSON.parse(request.response));
      else reject(new Error(await sentenceOf(request, request.response)));
    };
    request.onerror = () => reject(new Error("The file cannot be sent; look whether fmsd demo still runs."));
    request.onabort = () => resolve(null);
    request.open("POST", PREDICTIONS);
    request.send(form);
    job.request = request;
  });
}

function showState(state) {
  const { fraction, seconds } = state.progress;
  const left = fraction > 0 ? `, about ${Math.ceil(seconds * (1 - fraction) / fraction)} s left` : "";
  if (state.state === "waiting") show("Waiting", `place ${state.place} in the queue`, 0);
  else if (fraction < 1) show("Looking for faces and scoring them", percent(fraction) + left, fraction);
  else show("Writing the result", "", 1);
}

async function follow(job) {
  for (let missed = 0; current === job; await pause()) {
    let response;
    try {
      response = await fetch(`${PREDICTIONS}/${job.id}`);
    } catch (error) {
      missed += 1;
      if (missed > 5) throw new Error("The page no longer answers; start fmsd demo again.", { cause: error });
      continue;
    }
    if (!response.ok) throw new Error(await sentenceOf(response));
    const state = await response.json();
    if (state.state === "failed") throw new Error(state.message);
    if (state.state === "done") return state;
    showState(state);
  }
  return null;
}

function outcome({ status, message, sampled, kind }) {
  const where = kind === "image" ? "the image" : `${sampled} frames of the video`;
  const element = document.createElement("p");
  element.textContent = status === "unreadable" ? message : `No face was found in ${where}, so there is nothing to score.`;
  element.className = status === "unreadable" ? "warning" : "";
  return element;
}

async function showResult(job, state) {
  const [file] = state.result.files;
  const response = await fetch(`predictions/${job.id}`);
  if (!response.ok) throw new Error(await sentenceOf(response));
  const text = await response.text();
  if (current !== job) return;
  const page = new DOMParser().parseFromString(text, "text/html");
  const article = page.querySelector("#found article");
  article?.querySelector("h3").remove();  // the name, which is the heading here
  if (article) {
    article.querySelector(".verdict").after(...page.querySelectorAll("#files > p"));  // that it is no proof
    part("found").replaceChildren(...article.childNodes, ...page.querySelector("#meaning").childNodes);
  } else part("found").replaceChildren(outcome(file));
  part("title").textContent = state.name;
  for (const id of ["page", "save"]) part(id).href = `predictions/${job.id}`;
  part("json").href = `${PREDICTIONS}/${job.id}`;
  part("save").download = `${state.name}.html`;
  part("work").hidden = true;
  part("result").hidden = false;
  part("title").focus();
}

async function score(file) {
  if (current) stop();
  const job = { request: null, id: null };
  part("problem").textContent = "";
  part("result").hidden = true;
  if (file.size > limit) { fail(`${file.name} is larger than ${limit / 1e6} MB; cut it, or start fmsd demo with a higher limit=.`); return; }
  current = job;
  part("name").textContent = file.name;
  part("work").hidden = false;
  show("Sending", percent(0), 0);
  try {
    const accepted = await send(file, job);
    if (!accepted) return;
    job.id = accepted.id;
    if (current !== job) { forget(job); return; }
    const state = await follow(job);
    if (!state) return;
    await showResult(job, state);
    if (current === job) current = null;
  } catch (error) {
    if (current === job) fail(error.message);  // otherwise it was cancelled
  }
}

function forget(job) {
  job.request?.abort();
  if (job.id) fetch(`${PREDICTIONS}/${job.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

function stop() {
  if (current) forget(current);
  current = null;
  part("work").hidden = true;
}

part("file").addEventListener("change", () => {
  const [file] = part("file").files;
  if (file) score(file);
  part("file").value = "";  // the same file may be chosen again
});
part("cancel").addEventListener("click", () => { stop(); part("file").focus(); });
addEventListener("pagehide", stop);

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const { files } = event.dataTransfer;
  if (files.length > 1) part("problem").textContent = "Drop one file at a time; fmsd predict scores many.";
  else if (files.length) score(files[0]);
});

const about = await (await fetch("api")).json();
limit = about.limit;
part("about").textContent = `Scored by the run ${about.run}; up to ${limit / 1e6} MB`;
