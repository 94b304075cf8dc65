"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const element = (id) => document.getElementById(id);
const storage = `pigeon-study-${study.study}`;
let rater, choices, unsaved, place;

function begin() {
  const random = crypto.getRandomValues(new Uint8Array(8));
  rater = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  choices = new Array(study.pairs.length).fill(null);
  unsaved = false;
}

function restore() {
  begin();
  try {
    const kept = localStorage.getItem(storage);
    if (kept !== null) ({ rater, choices, unsaved } = JSON.parse(kept));
  } catch {
    // A private window may refuse its storage: the answers then last as long as the page.
  }
  const open = choices.indexOf(null);
  place = open === -1 ? choices.length : open;
}

function keep() {
  try {
    localStorage.setItem(storage, JSON.stringify({ rater, choices, unsaved }));
  } catch {
    // As above.
  }
}

function picture(number, image = new Image()) {
  image.src = study.images[number];
  return image;
}

function show() {
  const ended = place >= study.pairs.length;
  element("question").hidden = ended;
  element("end").hidden = !ended;
  element("tie").disabled = ended;
  element("back").disabled = place === 0;
  element("save").disabled = choices.every((choice) => choice === null);
  element("another").disabled = unsaved;
  element("saved").textContent = "";
  if (ended) {
    element("save").focus();
    return;
  }
  const pair = study.pairs[place];
  element("progress").textContent = `${place + 1} of ${study.pairs.length}`;
  element("history-title").hidden = pair.history.length === 0;
  element("history").replaceChildren(...pair.history.map((number) => picture(number)));
  for (const image of element("history").children) image.alt = "liked picture";
  element("reference").hidden = pair.reference === null;
  if (pair.reference !== null) picture(pair.reference, element("reference"));
  element("words").textContent = pair.words;
  for (const side of ["left", "right"]) {
    picture(pair[side], element(side).querySelector("img"));
    element(side).setAttribute("aria-pressed", String(choices[place] === side));
  }
  element("tie").setAttribute("aria-pressed", String(choices[place] === "tie"));
}

function choose(choice) {
  if (place >= study.pairs.length) return;
  choices[place] = choice;
  unsaved = true;
  keep();
  place += 1;
  show();
}

function back() {
  place = Math.max(0, place - 1);
  show();
}

function save() {
  if (element("save").disabled) return;
  const answers = study.pairs
    .map((pair, index) => ({ pair: pair.number, choice: choices[index] }))
    .filter((answer) => answer.choice !== null);
  const text = JSON.stringify({ version: study.version, study: study.study, rater, answers }, null, 1) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `answers-${study.study}-${rater}.json`;
  unsaved = false;
  keep();
  element("another").disabled = false;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  element("saved").textContent = `${answers.length} of ${study.pairs.length} answers saved as ${link.download}`;
}

function another() {
  begin();
  keep();
  place = 0;
  show();
}

const keys = {
  arrowleft: () => choose("left"),
  arrowright: () => choose("right"),
  t: () => choose("tie"),
  b: back,
  s: save,
};
document.addEventListener("keydown", (event) => {
  // A held Enter would click the focused button once for every pair.
  if (event.repeat && event.key === "Enter") event.preventDefault();
  const act = keys[event.key.toLowerCase()];
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || act === undefined) return;
  event.preventDefault();
  act();
});
for (const choice of ["left", "right", "tie"]) {
  element(choice).addEventListener("click", (event) => {
    // The second click of a double click would answer the next pair unseen.
    if (event.detail <= 1) choose(choice);
  });
}
element("back").addEventListener("click", back);
element("save").addEventListener("click", save);
element("another").addEventListener("click", another);
window.addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});
restore();
show();
