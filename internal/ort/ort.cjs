// Runs models in ONNX Runtime; the request is JSON on standard input, the answer JSON on
// standard output. See Request and Outcome in ort.go.
const ort = require('onnxruntime-node');
const fs = require('fs');

const arrays = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array, bool: Uint8Array };

// input is a tensor of pseudo-random numbers in [-1, 1], of ones for other types.
function input(meta, size, columns) {
  const dims = meta.shape.map((d, i) => (typeof d === 'number' && d > 0 ? d : i === 0 ? 1 : i === 3 && columns > 0 ? columns : size));
  const n = dims.reduce((a, b) => a * b, 1);
  if (meta.type === 'float16') {
    throw new Error('float16 inputs are not made here');
  }
  const data = new arrays[meta.type](n);
  if (!meta.type.startsWith('float')) {
    data.fill(meta.type === 'int64' ? 1n : 1);
    return new ort.Tensor(meta.type, data, dims);
  }
  let x = 12345;
  for (let i = 0; i < n; i++) {
    x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
    data[i] = (x / 0x7fffffff) * 2 - 1;
  }
  return new ort.Tensor(meta.type, data, dims);
}

function median(values) {
  values.sort((a, b) => a - b);
  return values[values.length >> 1];
}

async function main() {
  const q = JSON.parse(fs.readFileSync(0));
  const all = [];
  for (const [i, model] of q.models.entries()) {
    const session = await ort.InferenceSession.create(model, {
      intraOpNumThreads: q.threads || 1, interOpNumThreads: 1, graphOptimizationLevel: (q.levels || [])[i] || 'all', logSeverityLevel: 3,
      // On a busy machine threads that spin while they wait are slower than one thread.
      extra: { session: { intra_op: { allow_spinning: '0' } } },
    });
    // Inputs that have default values are left out.
    const first = all[0];
    const feeds = {};
    for (const meta of session.inputMetadata) {
      if (first && !(meta.name in first.feeds)) throw new Error(`${model} has an input ${meta.name} that ${first.model} lacks`);
      feeds[meta.name] = first ? first.feeds[meta.name] : input(meta, q.size, q.columns);
    }
    all.push({ model, session, feeds, times: [], cpu: [] });
  }
  for (const m of all) {
    m.result = await m.session.run(m.feeds);
    m.outputs = [];
    for (const [name, t] of Object.entries(m.result)) {
      const want = all[0].result[name];
      if (!want || want.data.length !== t.data.length) throw new Error(`${m.model} gives ${name} of shape [${t.dims}], unlike ${all[0].model}`);
      let diff = 0, top = 0;
      for (let i = 0; i < t.data.length; i++) {
        const d = Math.abs(Number(t.data[i]) - Number(want.data[i]));
        if (!(d <= diff)) diff = d;
        top = Math.max(top, Math.abs(Number(want.data[i])));
      }
      m.outputs.push({ name, dims: t.dims, diff: Number.isFinite(diff) ? diff : 1e300, top: Number.isFinite(top) ? top : 1e300 });
    }
    if (m !== all[0]) m.result = undefined;
  }
  const end = performance.now() + 1000 * q.seconds * all.length;
  for (let r = 0; q.seconds > 0 && (r < 5 || performance.now() < end); r++) {
    for (const m of all) {
      const cpu = process.cpuUsage();
      const start = performance.now();
      await m.session.run(m.feeds);
      const wall = performance.now() - start;
      const used = process.cpuUsage(cpu);
      if (r > 0) { // the first is slower
        m.times.push(wall);
        m.cpu.push((used.user + used.system) / 1000);
      }
    }
  }
  process.stdout.write(JSON.stringify(all.map((m) => ({
    model: m.model, outputs: m.outputs, inputs: Object.fromEntries(Object.entries(m.feeds).map(([k, t]) => [k, t.dims])),
    runs: m.times.length, min_ms: m.times.length ? Math.min(...m.times) : 0, cpu_ms: m.times.length ? median(m.cpu) : 0,
  }))));
}

main().catch((e) => { process.stderr.write(`Error: ${e.message}\n`); process.exit(1); });
