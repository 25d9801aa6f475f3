"use strict";
// Each film: the people of the frame that is shown, while the pointer is on it, and a timeline that can be clicked.
for (const article of document.querySelectorAll("article.film")) {
  const film = JSON.parse(article.querySelector("script").textContent);
  const player = article.querySelector(".player");
  const canvas = article.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const timeline = article.querySelector(".timeline");
  const start = Number(timeline.dataset.start);
  const length = Number(timeline.dataset.length);
  const gap = Math.max(0.5, (2 * length) / Math.max(1, film.frames.length - 1));
  let video = article.querySelector("video");
  let moment = start; // where there is no film to ask
  let pointer = null;

  function decoded(url) {
    try {
      return decodeURIComponent(url);
    } catch {
      return url; // a name that is not Unicode
    }
  }

  const now = () => (video ? video.currentTime + film.offset : moment);

  // The last frame that has begun; times are rounded to milliseconds.
  function current() {
    let low = 0;
    let high = film.frames.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (film.frames[middle][0] <= now() + 0.002) low = middle;
      else high = middle;
    }
    const found = film.frames[low];
    const since = found ? now() - found[0] : -1;
    return since >= -0.002 && since <= gap ? found : [now(), []]; // none of them: before the first, or after the last
  }

  function joints([id, ...numbers]) {
    const found = [];
    for (let joint = 0; joint < film.names.length; joint++) {
      const [x, y, confidence] = numbers.slice(3 * joint, 3 * joint + 3);
      found.push(confidence > 0 ? { id, joint, x, y, confidence } : null);
    }
    return found;
  }

  function draw() {
    for (const line of timeline.querySelectorAll(".bar"))
      line.style.setProperty("--now", `${(100 * Math.min(Math.max((now() - start) / length, 0), 1)).toFixed(2)}%`);
    const scale = canvas.clientWidth / film.width;
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    pen.scale(devicePixelRatio * scale, devicePixelRatio * scale);
    if (video && !pointer) return;
    const people = current()[1].map(joints);
    const nearest = pointer && near(people.flat(), 24 / scale);
    for (const person of people) {
      const found = person.filter((joint) => joint);
      if (!found.length) continue;
      if (!video) {
        pen.strokeStyle = "#8ab4f8";
        pen.lineWidth = 2 / scale;
        for (const [from, to] of film.limbs) {
          if (!person[from] || !person[to]) continue;
          pen.beginPath();
          pen.moveTo(person[from].x, person[from].y);
          pen.lineTo(person[to].x, person[to].y);
          pen.stroke();
        }
      }
      const meant = nearest && found.includes(nearest);
      for (const joint of found) {
        pen.beginPath();
        pen.arc(joint.x + 0.5, joint.y + 0.5, (joint === nearest ? 6 : 4) / scale, 0, 7);
        pen.fillStyle = joint === nearest ? "#fff" : meant ? "#ffffffb0" : "#ffffff50";
        pen.strokeStyle = "#000";
        pen.lineWidth = 1 / scale;
        pen.fill();
        pen.stroke();
      }
      if (pointer && found[0].id >= 0) {
        const top = found.reduce((one, other) => (other.y < one.y ? other : one));
        pen.font = `600 ${15 / scale}px system-ui, sans-serif`;
        pen.textAlign = "center";
        pen.lineWidth = 4 / scale;
        pen.strokeText(String(top.id), top.x, top.y - 10 / scale);
        pen.fillStyle = "#fff";
        pen.fillText(String(top.id), top.x, top.y - 10 / scale);
      }
    }
    if (pointer) say(nearest);
  }

  function near(found, most) {
    let best = null;
    for (const joint of found) {
      if (!joint) continue;
      const distance = Math.hypot(joint.x - pointer.x, joint.y - pointer.y);
      if (distance <= most) [best, most] = [joint, distance];
    }
    return best;
  }

  function say(joint) {
    tip.hidden = !joint;
    if (!joint) return;
    const who = joint.id >= 0 ? `person ${joint.id} · ` : "";
    const name = film.names[joint.joint].replaceAll("_", " ");
    tip.textContent = `${who}${name} · ${joint.x}, ${joint.y} · ${(joint.confidence / 100).toFixed(2)}`;
    tip.style.left = `${Math.max(4, Math.min(pointer.clientX + 14, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, pointer.clientY - tip.offsetHeight - 10)}px`;
  }

  player.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = film.width / box.width;
    const [x, y] = [(event.clientX - box.x) * scale, (event.clientY - box.y) * scale];
    pointer = { x, y, clientX: event.clientX, clientY: event.clientY };
    draw();
  });
  player.addEventListener("pointerleave", () => {
    pointer = null;
    tip.hidden = true;
    draw();
  });

  timeline.addEventListener("click", (event) => {
    const bar = event.target.closest(".row")?.querySelector(".bar");
    if (!bar) return;
    const box = bar.getBoundingClientRect();
    moment = start + length * Math.min(Math.max((event.clientX - box.x) / box.width, 0), 1);
    if (video) video.currentTime = Math.max(0, moment - film.offset);
    draw();
  });

  if (video) {
    const follow = () => {
      if (!video) return;
      draw();
      if (!video.paused) requestAnimationFrame(follow);
    };
    for (const event of ["play", "seeked", "timeupdate", "loadeddata"]) video.addEventListener(event, follow);
    const giveUp = () => {
      const said = document.createElement("p");
      said.className = "warning";
      said.textContent = `${decoded(video.getAttribute("src"))} cannot be played here: it lies elsewhere, or the browser does not know its format. Its people are drawn alone; click the timeline.`;
      article.querySelector(".text").append(said);
      video.remove();
      video = null;
      draw();
    };
    video.addEventListener("error", giveUp);
    if (video.error) giveUp();
  }
  new ResizeObserver(draw).observe(player);
  draw();
}
