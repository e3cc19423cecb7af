// A session of the AWS SDK for JavaScript v3. `npm install && npm start`.
// Endpoint and keys from the environment; prints PASS or FAIL for each step.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import {
  AbortMultipartUploadCommand, CopyObjectCommand, CreateBucketCommand, CreateMultipartUploadCommand,
  DeleteBucketCommand, DeleteObjectCommand, DeleteObjectsCommand, GetObjectCommand, HeadObjectCommand,
  ListBucketsCommand, ListMultipartUploadsCommand, ListPartsCommand, PutObjectCommand, S3Client, UploadPartCommand,
  paginateListObjectsV2,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const MIB = 1 << 20;
const Bucket = `clients-js-${process.pid}-${Date.now()}`;
const ODD_KEYS = [
  "a b", "plus+plus", "100%", "ümläut/日本語", "emoji😀", "a=b&c", "semi;colon", "quote's", "#hash", "(x)!~*", "q?x=1",
  "<&>", "back\\slash", "trailing/", "a//b", "./dot", "../dots", "@:,$",
];
const client = new S3Client({
  endpoint: process.env.WEFT_ENDPOINT ?? "http://127.0.0.1:9000",
  region: "us-east-1",
  forcePathStyle: true,
  maxAttempts: 1,
  credentials: {
    accessKeyId: process.env.WEFT_ACCESS_KEY ?? "rustfsadmin",
    secretAccessKey: process.env.WEFT_SECRET_KEY ?? "rustfssecret",
  },
});
const send = (Command, input = {}) => client.send(new Command({ Bucket, ...input }));
const bytes = async (Key, input = {}) =>
  Buffer.from(await (await send(GetObjectCommand, { Key, ...input })).Body.transformToByteArray());
const refused = (name, promise) => assert.rejects(promise, (error) => (assert.equal(error.name, name), true));
const keys = async (input = {}) => {
  const found = [];
  for await (const page of paginateListObjectsV2({ client, pageSize: 7 }, { Bucket, ...input }))
    found.push(...(page.Contents ?? []).map((entry) => entry.Key));
  return found;
};
const large = randomBytes(100 * MIB);

const steps = {
  "make bucket": async () => {
    await send(CreateBucketCommand);
    assert((await client.send(new ListBucketsCommand({}))).Buckets.some((bucket) => bucket.Name === Bucket));
  },
  "make it again is refused": () => refused("BucketAlreadyOwnedByYou", send(CreateBucketCommand)),
  "put, head, get": async () => {
    await send(PutObjectCommand, { Key: "small", Body: "hello", ContentType: "text/x", Metadata: { a: "1" } });
    const head = await send(HeadObjectCommand, { Key: "small" });
    assert.deepEqual([head.ContentLength, head.ContentType, head.Metadata], [5, "text/x", { a: "1" }]);
    assert.equal((await bytes("small")).toString(), "hello");
    assert.equal((await bytes("small", { Range: "bytes=1-3" })).toString(), "ell");
  },
  "put of nothing": async () => {
    await send(PutObjectCommand, { Key: "empty", Body: "" });
    assert.equal((await bytes("empty")).length, 0);
  },
  "put of a stream": async () => {
    const body = large.subarray(0, 300_000);
    await send(PutObjectCommand, { Key: "stream", Body: Readable.from([body]), ContentLength: body.length });
    assert((await bytes("stream")).equals(body));
  },
  "every checksum": async () => {
    for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]) {
      const body = large.subarray(0, 200_000);
      await send(PutObjectCommand, { Key: "sum", Body: body, ChecksumAlgorithm });
      assert((await bytes("sum", { ChecksumMode: "ENABLED" })).equals(body));
    }
  },
  "put if absent": async () => {
    await send(PutObjectCommand, { Key: "once", Body: "1", IfNoneMatch: "*" });
    await refused("PreconditionFailed", send(PutObjectCommand, { Key: "once", Body: "2", IfNoneMatch: "*" }));
  },
  list: async () => {
    for (let i = 0; i < 30; i++) await send(PutObjectCommand, { Key: `dir/${i}`, Body: "x" });
    assert.equal((await keys({ Prefix: "dir/" })).length, 30);
    assert(!(await keys({ Delimiter: "/" })).includes("dir/1"));
  },
  copy: async () => {
    await send(CopyObjectCommand, { Key: "copy", CopySource: `${Bucket}/small` });
    assert.equal((await bytes("copy")).toString(), "hello");
  },
  "100 MiB multipart put": async () => {
    await new Upload({ client, params: { Bucket, Key: "large", Body: large }, partSize: 8 * MIB, queueSize: 4 }).done();
    assert((await bytes("large")).equals(large));
  },
  "multipart of a stream of unknown length": async () => {
    const body = Readable.from([large.subarray(0, 3 * MIB), large.subarray(3 * MIB, 12 * MIB)]);
    await new Upload({ client, params: { Bucket, Key: "unknown", Body: body }, partSize: 5 * MIB }).done();
    assert((await bytes("unknown")).equals(large.subarray(0, 12 * MIB)));
  },
  "multipart listed and aborted": async () => {
    const { UploadId } = await send(CreateMultipartUploadCommand, { Key: "aborted" });
    await send(UploadPartCommand, { Key: "aborted", UploadId, PartNumber: 1, Body: "part" });
    assert.equal((await send(ListPartsCommand, { Key: "aborted", UploadId })).Parts.length, 1);
    assert.equal((await send(ListMultipartUploadsCommand)).Uploads.length, 1);
    await send(AbortMultipartUploadCommand, { Key: "aborted", UploadId });
    await refused("NoSuchUpload", send(ListPartsCommand, { Key: "aborted", UploadId }));
  },
  presigned: async () => {
    const put = await getSignedUrl(client, new PutObjectCommand({ Bucket, Key: "signed" }), { expiresIn: 60 });
    assert.equal((await fetch(put, { method: "PUT", body: "by url" })).status, 200);
    const get = await getSignedUrl(client, new GetObjectCommand({ Bucket, Key: "signed" }), { expiresIn: 60 });
    assert.equal(await (await fetch(get)).text(), "by url");
  },
  "nothing there is NoSuchKey": () => refused("NoSuchKey", send(GetObjectCommand, { Key: "nothing" })),
  "odd keys": async () => {
    for (const key of ODD_KEYS) {
      await send(PutObjectCommand, { Key: `odd/${key}`, Body: key });
      assert.equal((await bytes(`odd/${key}`)).toString(), key);
      const CopySource = encodeURIComponent(`${Bucket}/odd/${key}`);
      await send(CopyObjectCommand, { Key: "odd copy", CopySource });
      assert.equal((await bytes("odd copy")).toString(), key);
    }
    assert.deepEqual(new Set(await keys({ Prefix: "odd/" })), new Set(ODD_KEYS.map((key) => `odd/${key}`)));
  },
  delete: async () => {
    await send(DeleteObjectCommand, { Key: "small" });
    await refused("NotFound", send(HeadObjectCommand, { Key: "small" }));
  },
  "a bucket with objects is not removed": () => refused("BucketNotEmpty", send(DeleteBucketCommand)),
  "delete all": async () => {
    const Objects = (await keys()).map((Key) => ({ Key }));
    const answer = await send(DeleteObjectsCommand, { Delete: { Objects } });
    assert.equal(answer.Errors, undefined);
    assert.deepEqual(await keys(), []);
  },
  "remove bucket": () => send(DeleteBucketCommand),
};

let failed = 0;
for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log(`PASS ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL ${name}\n     | ${String(error.stack ?? error).replaceAll("\n", "\n     | ")}`);
  }
}
console.log(failed ? `FAIL ${failed} steps` : "PASS all");
process.exit(failed ? 1 : 0);
