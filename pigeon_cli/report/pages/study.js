"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const element = (id) => document.getElementById(id);
const rater = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const choices = new Array(study.pairs.length).fill(null);
let place = 0;

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
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  element("saved").textContent = `${answers.length} of ${study.pairs.length} answers saved as ${link.download}`;
}

const keys = {
  ArrowLeft: () => choose("left"),
  ArrowRight: () => choose("right"),
  ArrowDown: () => choose("tie"),
  ArrowUp: back,
  s: save,
  S: save,
};
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
element("left").addEventListener("click", () => choose("left"));
element("right").addEventListener("click", () => choose("right"));
element("tie").addEventListener("click", () => choose("tie"));
element("back").addEventListener("click", back);
element("save").addEventListener("click", save);
show();
