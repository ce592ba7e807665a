// Runs an ONNX model once: node run.mjs MODEL OUTPUT '[{"file":…,"dims":[…]}]' [THREADS]
import ort from 'onnxruntime-node';
import fs from 'fs';
const [, , model, output, specs] = process.argv;
const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3 });
const feeds = {};
JSON.parse(specs).forEach((s, i) => {
  const bytes = fs.readFileSync(s.file);
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  feeds[session.inputNames[i]] = new ort.Tensor('float32', Float32Array.from(values), s.dims);
});
const result = await session.run(feeds);
const chunks = [];
const described = session.outputNames.map((name) => {
  const t = result[name];
  const values = t.data instanceof Float32Array ? t.data : Float32Array.from(t.data, Number);
  chunks.push(Buffer.from(values.buffer, values.byteOffset, values.byteLength));
  return { Name: name, Dims: Array.from(t.dims, Number) };
});
fs.writeFileSync(output, Buffer.concat(chunks));
console.log(JSON.stringify(described));
