// Draws point clouds that people can turn, with a pen that every browser has: no WebGL.
// Each is a <canvas class="cloud" data-points="…">: x, y, z of every point, little-endian
// 16-bit numbers from one corner of its cube to the other, as base64.
() => {
  const LOW = [31, 64, 191], HIGH = [255, 158, 51]; // colours of the lowest and highest point
  const FULL = 65535, STEP = Math.PI / 16, SHADES = 24;
  const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const read = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return Float32Array.from(new Uint16Array(bytes.buffer), (n) => n / FULL - 0.5);
  };

  const shade = (share) => {
    const mixed = LOW.map((low, i) => Math.round(low + (HIGH[i] - low) * share));
    return `rgb(${mixed.join(" ")})`;
  };

  const coloursOf = (points) => {
    let low = Infinity, high = -Infinity;
    for (let i = 1; i < points.length; i += 3) {
      low = Math.min(low, points[i]);
      high = Math.max(high, points[i]);
    }
    const shades = Array.from({ length: SHADES }, (_, i) => shade(i / (SHADES - 1)));
    const at = (y) => Math.floor(((y - low) / (high - low || 1)) * (SHADES - 1));
    return Array.from({ length: points.length / 3 }, (_, i) => shades[at(points[3 * i + 1])]);
  };

  const draw = (canvas, points, colours, yaw, pitch) => {
    const scale = window.devicePixelRatio || 1;
    const width = (canvas.width = canvas.clientWidth * scale);
    const height = (canvas.height = canvas.clientHeight * scale);
    const pen = canvas.getContext("2d"), size = 1.1 * Math.min(width, height), dot = 2 * scale;
    const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
    const seen = colours.map((colour, i) => {
      const [x, y, z] = points.subarray(3 * i, 3 * i + 3);
      const ahead = z * cy - x * sy;
      return { colour, x: x * cy + z * sy, y: y * cp - ahead * sp, depth: y * sp + ahead * cp };
    });
    seen.sort((one, other) => one.depth - other.depth);
    for (const { colour, x, y, depth } of seen) {
      const near = 2.4 / (2.4 - depth);
      pen.globalAlpha = Math.min(1, Math.max(0.25, 0.65 + depth));
      pen.fillStyle = colour;
      pen.fillRect(width / 2 + x * near * size, height / 2 - y * near * size, dot, dot);
    }
  };

  const begin = (canvas) => {
    canvas.dataset.live = "yes";
    const points = read(canvas.dataset.points), colours = coloursOf(points);
    let yaw = 0.6, pitch = 0.25;
    const turn = (right, down) => {
      yaw += right;
      pitch = Math.min(1.5, Math.max(-1.5, pitch + down));
      draw(canvas, points, colours, yaw, pitch);
      canvas.dataset.turned = yaw.toFixed(2);
    };
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) turn(event.movementX / 100, event.movementY / 100);
    });
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in TURNS)) return;
      event.preventDefault();
      turn(...TURNS[event.key].map((way) => way * STEP));
    });
    new ResizeObserver(() => turn(0, 0)).observe(canvas);
  };

  const find = () => document.querySelectorAll("canvas.cloud:not([data-live])").forEach(begin);
  new MutationObserver(find).observe(document.body, { childList: true, subtree: true });
  find();
}
