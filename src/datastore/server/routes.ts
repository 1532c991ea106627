/** The store's routes as data: paths, schemas and answers, from which OpenAPI is made. */
import { createRoute, z } from "@hono/zod-openapi";
import {
  CapacityBody,
  CreateVolumeBody,
  DigestsBody,
  DigestsRequest,
  MAX_IDEMPOTENCY_KEY_LENGTH,
  MirrorGrantBody,
  MirrorRequestBody,
  ProblemBody,
  PromoteBody,
  ResizeVolumeBody,
  VolumeBody,
  VolumesBody,
} from "../wire.ts";

const Id = z.object({ id: z.string().max(64) });
const Key = z.object({
  "idempotency-key": z.string().min(1).max(MAX_IDEMPOTENCY_KEY_LENGTH).optional().openapi({
    description: "Two requests with the same key do one thing; the second gets the first's answer.",
  }),
});

/** The name of the security scheme in the OpenAPI document. */
export const BEARER = "bearer";
const security = [{ [BEARER]: [] }];

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  description,
  content: { "application/json": { schema } },
});
const body = <T extends z.ZodType>(schema: T) => ({
  required: true,
  content: { "application/json": { schema } },
});
const problems = {
  default: {
    description: "What is wrong, by its code.",
    content: { "application/problem+json": { schema: ProblemBody } },
  },
};
const done = { 204: { description: "Done." }, ...problems };

export const listVolumes = createRoute({
  method: "get",
  path: "/v1/volumes",
  summary: "All volumes, by id",
  responses: { 200: json(VolumesBody, "The volumes."), ...problems },
});

export const createVolume = createRoute({
  method: "post",
  path: "/v1/volumes",
  summary: "Make a volume and export it",
  security,
  request: { headers: Key, body: body(CreateVolumeBody) },
  responses: { 201: json(VolumeBody, "The volume, made durably."), ...problems },
});

export const showVolume = createRoute({
  method: "get",
  path: "/v1/volumes/{id}",
  summary: "One volume",
  request: { params: Id },
  responses: { 200: json(VolumeBody, "The volume."), ...problems },
});

export const resizeVolume = createRoute({
  method: "patch",
  path: "/v1/volumes/{id}",
  summary: "Grow a volume; the same size again is no error",
  security,
  request: { params: Id, body: body(ResizeVolumeBody) },
  responses: { 200: json(VolumeBody, "The volume with its new size."), ...problems },
});

export const deleteVolume = createRoute({
  method: "delete",
  path: "/v1/volumes/{id}",
  summary: "Delete a volume, cutting off whoever has it open",
  security,
  request: { params: Id },
  responses: done,
});

export const digestVolume = createRoute({
  method: "post",
  path: "/v1/volumes/{id}/digests",
  summary: "Digests of what is persisted now",
  security,
  request: { params: Id, body: body(DigestsRequest) },
  responses: { 200: json(DigestsBody, "One digest per extent."), ...problems },
});

export const promoteVolume = createRoute({
  method: "post",
  path: "/v1/volumes/{id}/promote",
  summary: "Raise the epoch: when this answers, no writer with a lower one writes any more",
  security,
  request: { params: Id, body: body(PromoteBody) },
  responses: { 200: json(VolumeBody, "The volume with its epoch."), ...problems },
});

export const showCapacity = createRoute({
  method: "get",
  path: "/v1/capacity",
  summary: "How much room there is",
  responses: { 200: json(CapacityBody, "The room."), ...problems },
});

export const requestMirror = createRoute({
  method: "post",
  path: "/v1/mirror-requests",
  summary: "Ask for a larger volume ahead of need, to be filled as a mirror",
  security,
  request: {
    headers: Key.required(),
    body: body(MirrorRequestBody),
  },
  responses: { 201: json(MirrorGrantBody, "Granted: write to the volume's URI."), ...problems },
});

export const showMirrorRequest = createRoute({
  method: "get",
  path: "/v1/mirror-requests/{id}",
  summary: "One mirror request",
  request: { params: Id },
  responses: { 200: json(MirrorGrantBody, "The request."), ...problems },
});

export const cancelMirrorRequest = createRoute({
  method: "delete",
  path: "/v1/mirror-requests/{id}",
  summary: "Cancel a mirror request and delete its volume, unless it was promoted",
  security,
  request: { params: Id },
  responses: done,
});
