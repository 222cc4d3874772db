// The page of the service: a photo in (dropped, pasted, chosen, taken), the answer with its evidence out.
"use strict";

const MAX_SIDE_PX = 2048; // larger photos are reduced before upload: the reader uses no more
const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

const REASONS = {
  overloaded: "The service is busy.",
  unauthorized: "The service requires an API key: enter it below the photo.",
  body_too_large: "The photo is too large.",
  too_many_images: "Too many photos at once.",
  not_answered_in_time: "The service did not answer in time.",
};
const STATUSES = {
  abstained: "The most likely category is below the confidence threshold.",
  no_text: "No text was found on the photo.",
  other_script: "The text is in a script that cannot be read.",
  unreadable: "The file is no usable image.",
  failed: "The service failed on this photo.",
};

let number = 0;

async function checkState() {
  try {
    const reply = await fetch("readyz");
    const state = await reply.json();
    byId("state").textContent = state.status === "ready" ? `Ready: ${state.predictor}` : `The service is ${state.status}.`;
    if (state.status !== "ready") setTimeout(checkState, 2000);
  } catch {
    byId("state").textContent = "The service cannot be reached.";
    setTimeout(checkState, 5000);
  }
}

/** Reduce a photo that is larger than the service uses; anything the browser cannot decode is sent as it is. */
async function prepared(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = MAX_SIDE_PX / Math.max(bitmap.width, bitmap.height);
    if (scale >= 1) return file;
    const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return new File([await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 })], file.name || "photo.jpg");
  } catch {
    return file;
  }
}

async function predict(files) {
  const photos = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
  if (!photos.length) return say("That is no image.");
  say(photos.length === 1 ? "Recognising the photo …" : `Recognising ${photos.length} photos …`);
  const answers = [];
  const problems = [];
  for (const photo of photos) {
    try {
      for (const answer of await send(photo)) {
        byId("answers").prepend(rendered(photo, answer));
        answers.push(answer);
      }
    } catch (error) {
      problems.push(error.isOfPhoto ? `${photo.name}: ${error.message}` : error.message);
      if (!error.isOfPhoto) break;
    }
  }
  const one = photos.length === 1;
  const result = one ? answers.map(sentence) : [`${answers.length} of ${photos.length} photos recognised.`];
  say([...result, ...problems].join(" "));
}

async function send(photo) {
  const form = new FormData();
  form.append("images", await prepared(photo), photo.name || "photo.jpg");
  const key = byId("key").value;
  let reply;
  try {
    reply = await fetch("predict?detail=true&top=5", {
      method: "POST", body: form, headers: key ? { Authorization: `Bearer ${key}` } : {},
    });
  } catch {
    throw new Error("The service cannot be reached.");
  }
  const body = await reply.json().catch(() => ({}));
  if (body.predictions) return body.predictions;
  const retry = reply.headers.get("Retry-After");
  if (body.error === "unauthorized") byId("key-box").open = true;
  const message = (REASONS[body.error] || `The service answered with an error (${body.error || reply.status}).`)
    + (retry ? ` Try again in ${retry} s.` : "");
  throw Object.assign(new Error(message), { isOfPhoto: body.error === "body_too_large" });
}

function say(text) {
  byId("status").textContent = text;
}

function sentence(answer) {
  if (!answer.category) return `No category. ${STATUSES[answer.status] || ""}`;
  return `${answer.category}${answer.probability === null ? "" : `, ${percent(answer.probability)}`}.`;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function rendered(photo, answer) {
  const item = byId("answer").content.firstElementChild.cloneNode(true);
  const part = (selector) => item.querySelector(selector);
  number += 1;
  part(".category").textContent = answer.category || "No category";
  part(".category").id = `category-${number}`;
  part("article").setAttribute("aria-labelledby", `category-${number}`);
  if (answer.outcome === "failed") item.classList.add("failed");
  const facts = [answer.parent, answer.answer && !answer.product && `decided by: ${answer.answer}`, STATUSES[answer.status], answer.reason];
  part(".summary").textContent = facts.filter(Boolean).join(" · ");
  showPhoto(part, photo, answer);
  showFields(part, answer);
  showRanking(part, answer.top);
  showText(part, answer);
  return item;
}

function showPhoto(part, photo, answer) {
  const image = part(".photo");
  const original = URL.createObjectURL(photo);
  image.src = answer.overlay || original;
  image.alt = `Photo ${photo.name || ""}`.trim();
  image.addEventListener("error", () => part("figure").replaceChildren(element("p", "No preview of this file.")));
  part("figcaption").textContent = photo.name || "Photo";
  if (answer.overlay) {
    const speaksFor = answer.top.length ? answer.top[0].label : answer.category;
    part("figcaption").textContent = `Blue speaks for ${speaksFor}, orange for ${answer.rival}.`;
    offerToggle(part, "Show where the model found evidence", (isOn) => { image.src = isOn ? answer.overlay : original; });
  } else if (answer.lines.length) {
    drawBoxes(part(".boxes"), answer.lines);
    offerToggle(part, "Show where text was read", (isOn) => { part(".boxes").hidden = !isOn; });
  }
}

function offerToggle(part, text, onChange) {
  part(".toggle span").textContent = text;
  part(".toggle").hidden = false;
  part(".toggle input").addEventListener("change", (event) => onChange(event.target.checked));
}

function drawBoxes(target, lines) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  for (const line of lines) {
    const polygon = document.createElementNS(space, "polygon");
    polygon.setAttribute("points", line.box.map((corner) => corner.join(",")).join(" "));
    svg.append(polygon);
  }
  target.replaceChildren(svg);
}

function showRanking(part, top) {
  part(".ranking").hidden = !top.length;
  part(".ranking ul").replaceChildren(...top.map((one) => {
    const row = element("li");
    const names = element("div", "", "names");
    names.append(element("span", one.label), element("span", percent(one.probability)));
    const bar = element("progress");
    bar.max = 1;
    bar.value = one.probability;
    bar.setAttribute("aria-label", `${one.label}: ${percent(one.probability)}`);
    row.append(names, bar);
    return row;
  }));
}

/** Show the fields of a structured answer that have a value, or one below its threshold. */
function showFields(part, answer) {
  const confidences = answer.confidences || {};
  const names = Object.keys(answer.product || {}).filter((name) => answer.product[name] !== null || name in confidences);
  part(".fields").hidden = !names.length;
  part(".fields tbody").replaceChildren(...names.map((name) => {
    const value = answer.product[name];
    const row = element("tr");
    const heading = element("th", name);
    heading.scope = "row";
    const text = value === null ? "uncertain" : Array.isArray(value) ? value.join(", ") : value;
    row.append(heading, element("td", text), element("td", name in confidences ? percent(confidences[name]) : ""));
    return row;
  }));
}

function showText(part, answer) {
  part(".reading").hidden = !answer.text.length;
  part(".reading ol").replaceChildren(...answer.text.map((text) => element("li", text)));
}

async function openCamera() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    byId("video").srcObject = stream;
    byId("viewfinder").hidden = false;
    await byId("video").play();
    byId("shoot").focus();
  } catch {
    say("The camera cannot be used: there is none, it was refused, or the page is not on https or localhost.");
  }
}

function closeCamera() {
  const video = byId("video");
  for (const track of video.srcObject?.getTracks() || []) track.stop();
  video.srcObject = null;
  byId("viewfinder").hidden = true;
  byId("camera").focus();
}

async function takePhoto() {
  const video = byId("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const photo = new File([await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 })], "camera.jpg", { type: "image/jpeg" });
  closeCamera();
  await predict([photo]);
}

const drop = byId("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", (event) => predict(event.dataTransfer.files));
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) predict(event.clipboardData.files);
});
byId("files").addEventListener("change", async (event) => {
  const chosen = [...event.target.files];
  event.target.value = "";
  if (chosen.length) await predict(chosen);
});
byId("key-form").addEventListener("submit", (event) => event.preventDefault());
byId("camera").addEventListener("click", openCamera);
byId("shoot").addEventListener("click", takePhoto);
byId("close-camera").addEventListener("click", closeCamera);
checkState();
