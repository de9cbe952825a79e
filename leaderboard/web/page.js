"use strict";
(() => {
  const FILTERED = 6; // rows from which a table has a filter
  const NUMBER = /[-+\u2212]?\d+(?:\.\d+)?(?:e[-+]?\d+)?/i;
  const PIXELS = 320; // of a canvas along the longest side of its volume

  // Tables: a click on a title sorts up, down, and back; rows of the last body stay where they are.

  function text(row, column) {
    return row.cells[column].textContent.trim();
  }

  function number(told) {
    const found = NUMBER.exec(told);
    return found ? parseFloat(found[0].replace("\u2212", "-")) : NaN;
  }

  function compare(column, numeric, sign) {
    return (a, b) => {
      const [x, y] = [text(a, column), text(b, column)];
      if (!numeric) return sign * x.localeCompare(y, undefined, { numeric: true });
      const [m, n] = [number(x), number(y)];
      if (isNaN(m) || isNaN(n)) return isNaN(m) - isNaN(n); // what is missing comes last
      return sign * (m - n);
    };
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const heads = Array.from(table.querySelectorAll("th[data-column]"));
    for (const head of heads) {
      const column = Number(head.dataset.column);
      const values = rows.map((row) => text(row, column)).filter((told) => told !== "–");
      const numeric = !head.classList.contains("name") && values.every((told) => !isNaN(number(told)));
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      if (head.hasAttribute("aria-label")) button.setAttribute("aria-label", head.getAttribute("aria-label"));
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (before === "descending") return body.append(...rows);
        head.setAttribute("aria-sort", before ? "descending" : "ascending");
        body.append(...rows.slice().sort(compare(column, numeric, before ? -1 : 1)));
      });
    }
  }

  function makeFilterable(table) {
    const rows = Array.from(table.tBodies[0].rows);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const box = document.createElement("div");
    const input = document.createElement("input");
    const told = document.createElement("output");
    box.className = "filter";
    input.type = "search";
    input.placeholder = "Filter rows";
    input.setAttribute("aria-label", "Filter rows of " + table.closest(".scroll").getAttribute("aria-label"));
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      told.value = words.length ? `${shown} of ${rows.length} rows` : "";
    });
    box.append(input, told);
    table.closest(".table").prepend(box);
  }

  for (const table of document.querySelectorAll("table")) {
    if (table.tBodies[0].rows.length > 1) makeSortable(table);
    if (table.tBodies[0].rows.length >= FILTERED) makeFilterable(table);
  }

  // Volumes: greys of a sheet of axial slices (superior first), from which any plane is taken.

  const PLANES = ["axial", "coronal", "sagittal"];

  async function greys(image, [r, a, s], across) {
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const values = new Uint8Array(r * a * s);
    for (let z = 0; z < s; z++) {
      const [left, top] = [(z % across) * r, Math.floor(z / across) * a];
      for (let y = 0; y < a; y++) {
        for (let x = 0; x < r; x++) {
          values[(z * a + y) * r + x] = pixels[4 * ((top + y) * canvas.width + left + x)];
        }
      }
    }
    return values;
  }

  // Slices count from inferior, posterior and left, as the voxels do; rows and columns run down and right.
  function slice(values, [r, a, s], plane, index) {
    const [width, height] = [plane === "sagittal" ? a : r, plane === "axial" ? a : s];
    const at = {
      axial: (x, y) => ((s - 1 - index) * a + y) * r + x,
      coronal: (x, y) => (y * a + a - 1 - index) * r + x,
      sagittal: (x, y) => (y * a + x) * r + r - 1 - index,
    }[plane];
    const taken = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) taken[y * width + x] = values[at(x, y)];
    return { taken, width, height };
  }

  function contours(context, { taken, width, height }, [dx, dy], colours) {
    const value = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : taken[y * width + x]);
    context.lineWidth = 2;
    colours.forEach((colour, i) => {
      context.beginPath();
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          if (value(x, y) !== i + 1) continue;
          // A line's middle lies a pixel inside, so that neighbours do not hide each other.
          const [left, top, right, bottom] = [x * dx + 1, y * dy + 1, (x + 1) * dx - 1, (y + 1) * dy - 1];
          const line = (...ends) => { context.moveTo(ends[0], ends[1]); context.lineTo(ends[2], ends[3]); };
          if (value(x, y - 1) !== i + 1) line(left - 1, top, right + 1, top);
          if (value(x, y + 1) !== i + 1) line(left - 1, bottom, right + 1, bottom);
          if (value(x - 1, y) !== i + 1) line(left, top - 1, left, bottom + 1);
          if (value(x + 1, y) !== i + 1) line(right, top - 1, right, bottom + 1);
        }
      }
      context.strokeStyle = colour;
      context.stroke();
    });
  }

  class Volume {
    constructor(element) {
      this.element = element;
      this.grid = element.dataset.grid.split(" ").map(Number);
      this.spacing = element.dataset.spacing.split(" ").map(Number);
      this.starts = element.dataset.starts.split(" ").map(Number); // of the slider, by plane
      this.colours = element.dataset.colours.split(" ");
      this.views = Array.from(element.querySelectorAll(".view")).map((view) => {
        const planes = document.createElement("div");
        planes.className = "planes";
        const canvases = PLANES.map(() => document.createElement("canvas"));
        canvases.forEach((canvas) => canvas.setAttribute("role", "img"));
        planes.append(...canvases);
        if (view.dataset.title && view.parentElement.querySelectorAll(".view").length > 1) view.append(view.dataset.title);
        view.append(planes);
        return { title: view.dataset.title, canvases, image: view.querySelector(".labels") };
      });
    }

    async load() {
      const across = Number(this.element.dataset.across);
      this.values = await greys(this.element.querySelector(".sheet"), this.grid, across);
      for (const view of this.views) {
        view.labels = view.image ? await greys(view.image, this.grid, across) : null;
      }
    }

    count(plane) {
      return this.grid[2 - PLANES.indexOf(plane)];
    }

    index(plane, step) {
      const index = this.starts[PLANES.indexOf(plane)] + Math.round(step * (this.count(plane) - 1));
      return Math.min(Math.max(index, 0), this.count(plane) - 1);
    }

    draw(plane, step, withContours) {
      const [r, a, s] = this.spacing;
      const scale = PIXELS / Math.max(...this.grid.map((n, i) => n * this.spacing[i]));
      const sides = [plane === "sagittal" ? a : r, plane === "axial" ? a : s];
      const index = this.index(plane, step);
      const grey = slice(this.values, this.grid, plane, index);
      const pixels = new ImageData(grey.width, grey.height);
      grey.taken.forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
      const small = document.createElement("canvas");
      [small.width, small.height] = [grey.width, grey.height];
      small.getContext("2d").putImageData(pixels, 0, 0);
      for (const view of this.views) {
        const canvas = view.canvases[PLANES.indexOf(plane)];
        canvas.width = Math.round(grey.width * sides[0] * scale);
        canvas.height = Math.round(grey.height * sides[1] * scale);
        const context = canvas.getContext("2d");
        context.imageSmoothingEnabled = false;
        context.drawImage(small, 0, 0, canvas.width, canvas.height);
        if (withContours && view.labels) {
          const steps = [canvas.width / grey.width, canvas.height / grey.height];
          contours(context, slice(view.labels, this.grid, plane, index), steps, this.colours);
        }
        const told = [this.element.dataset.of, this.element.dataset.name, view.title];
        canvas.setAttribute("aria-label", `${told.filter(Boolean).join(", ")}: ${plane} slice ${index + 1} of ${this.count(plane)}`);
      }
    }
  }

  async function show(viewer) {
    viewer.hidden = false;
    const volumes = Array.from(viewer.querySelectorAll(".volume")).map((element) => new Volume(element));
    const form = viewer.querySelector("form");
    const [range, told] = [form.querySelector("[type=range]"), form.querySelector("output")];
    const most = Math.max(...volumes.flatMap((volume) => volume.grid)) - 1;
    // Of changes the slider counts from each volume's own slice.
    const around = viewer.dataset.around;
    [range.min, range.max, range.value] = around ? [-most, most, 0] : [0, most, Math.round(most / 2)];

    function draw() {
      const chosen = form.querySelector("[type=radio]:checked").value;
      const planes = PLANES.includes(chosen) ? [chosen] : PLANES;
      const step = most ? Number(range.value) / most : 0;
      viewer.classList.toggle("three", planes.length > 1);
      for (const volume of volumes) {
        for (const view of volume.views) {
          view.canvases.forEach((canvas, i) => { canvas.hidden = !planes.includes(PLANES[i]); });
        }
        if (volume.values) planes.forEach((plane) => volume.draw(plane, step, form.querySelector("[type=checkbox]").checked));
      }
      const slices = planes.map((plane) => `${plane} ${volumes[0].index(plane, step) + 1} of ${volumes[0].count(plane)}`);
      const away = Number(range.value);
      told.value = around ? (away ? `${away > 0 ? "+" : "\u2212"}${Math.abs(away)} from ${around}` : around) : slices.join(", ");
      range.setAttribute("aria-valuetext", told.value);
    }

    let asked = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; draw(); });
    });
    for (const volume of volumes) await volume.load();
    draw();
    viewer.dataset.ready = "yes";
  }

  for (const viewer of document.querySelectorAll(".viewer")) show(viewer);
})();
