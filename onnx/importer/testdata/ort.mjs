// Runs an ONNX model in ONNX Runtime on an input that the test makes too, and prints the
// outputs as JSON: node ort.mjs FOLDER-OF-NODE_MODULES MODEL SHAPE.
import { createRequire } from 'node:module';
import fs from 'node:fs';

const [, , modules, file, shape] = process.argv;
const ort = createRequire(modules + '/')('onnxruntime-node');
const session = await ort.InferenceSession.create(file, { graphOptimizationLevel: 'all', logSeverityLevel: 3, intraOpNumThreads: 1 });
const dims = JSON.parse(shape);
const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
let x = 12345;
for (let i = 0; i < data.length; i++) {
  x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
  data[i] = (x / 0x7fffffff) * 2 - 1;
}
const results = await session.run({ [session.inputNames[0]]: new ort.Tensor('float32', data, dims) });
const out = session.outputNames.map((name) => ({
  name,
  dims: results[name].dims,
  data: Buffer.from(new Float32Array(results[name].data).buffer).toString('base64'),
}));
fs.writeSync(1, JSON.stringify(out));
