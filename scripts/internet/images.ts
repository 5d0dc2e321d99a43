import { busyboxRoot } from './busybox.ts'
import { type Content, contentOf, type Descriptor, descriptorOf, jsonContent, mediaType } from './content.ts'
import { elsewhere, here, type Image, type Index, makeImage, makeIndex } from './image.ts'
import { type Layer, makeLayer, randomLayer } from './layer.ts'

export type Repository = {
  name: string
  /** Only for users who have logged in. */
  private: boolean
  /** Tag → digest. */
  tags: Map<string, string>
  manifests: Map<string, Content>
  blobs: Map<string, Content>
  /** Digest → descriptors of the artifacts whose `subject` it is. */
  referrers: Map<string, Referrer[]>
}
export type Referrer = Descriptor & { artifactType: string }

export type Recipe = {
  repository: string
  /** Without a tag the image is there by its digest only. */
  tag?: string
  /** A number makes a random layer of so many bytes, unlike any made before; a layer of another image is shared. */
  layers: (number | Layer)[]
  /** @default false, or as the repository is */
  private?: boolean
}

/**
 * The images that the stand-ins serve, made on the spot. Digests are the same in each run on one machine.
 *
 * | repository | tags | |
 * |---|---|---|
 * | library/busybox | latest, 1, 1.35 | runs; an OCI index of two platforms, `1.35` a Docker schema 2 manifest |
 * | library/forty | latest | 40 small layers |
 * | library/zstd | latest | three zstd layers and one gzip layer |
 * | library/artifact | latest | has a referrer of type application/vnd.example.sbom |
 * | team/private | latest | for those who log in |
 * | library/big | latest | one uncompressed layer of as many bytes as asked for; only if asked for |
 */
export class Images {
  readonly repositories = new Map<string, Repository>()
  readonly #images = new Map<string, Image>()
  readonly #folder: string
  #made = 0

  /** Layers above 64 MiB go into `folder`. `big`: the size of library/big's layer in bytes. */
  static async make(folder: string, big?: number): Promise<Images> {
    const images = new Images(folder)
    await images.#busybox()
    const forty = Array.from({ length: 40 }, (_, i) => file(mediaType.gzip, `layer-${i + 1}`))
    images.#put('library/forty', 'latest', makeImage(await Promise.all(forty)))
    const zstd = [1, 2, 3].map(i => file(mediaType.zstd, `zstd-${i}`))
    images.#put('library/zstd', 'latest', makeImage(await Promise.all([file(mediaType.gzip, 'gzip'), ...zstd])))
    await images.#artifact()
    await images.add({ repository: 'team/private', tag: 'latest', layers: [100_000, 10_000], private: true })
    if (big !== undefined) images.#put('library/big', 'latest', makeImage([await randomLayer(big, 'big', folder)]))
    return images
  }

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** The image that a tag or digest names; of an index, the one for this machine. Throws if there is none. */
  image(repository: string, reference = 'latest'): Image {
    const digest = this.repositories.get(repository)?.tags.get(reference) ?? reference
    const image = this.#images.get(digest)
    if (!image) throw new Error(`no image ${repository}:${reference}`)
    return image
  }

  /** Makes an image, and moves the tag to it if there is one. */
  async add(recipe: Recipe): Promise<Image> {
    const layers: Layer[] = []
    for (const layer of recipe.layers) {
      if (typeof layer !== 'number') layers.push(layer)
      else layers.push(await randomLayer(layer, `${recipe.repository} ${++this.#made}`, this.#folder))
    }
    const image = makeImage(layers)
    const repository = this.#put(recipe.repository, recipe.tag, image)
    if (recipe.private !== undefined) repository.private = recipe.private
    return image
  }

  /**
   * Makes a tag point to an image that the repository has, or else to an `Image` that it gets. Throws if it hasn't the
   * digest.
   */
  move(repository: string, tag: string, to: string | Image): void {
    if (typeof to !== 'string') {
      this.#put(repository, tag, to)
      return
    }
    const known = this.repositories.get(repository)
    if (!known?.manifests.has(to)) throw new Error(`${repository} has no manifest ${to}`)
    known.tags.set(tag, to)
  }

  async #busybox(): Promise<void> {
    const root = await makeLayer(mediaType.gzip, busyboxRoot())
    const command = ['sh']
    const image = makeImage([root], { command })
    const other = makeImage([await file(mediaType.gzip, elsewhere.architecture)], { platform: elsewhere, command })
    const index = makeIndex([image, other])
    this.#put('library/busybox', 'latest', index)
    this.#put('library/busybox', '1', index)
    this.#put('library/busybox', '1.35', makeImage([root], { command, docker: true }))
  }

  async #artifact(): Promise<void> {
    const image = makeImage([await file(mediaType.gzip, 'artifact')])
    const repository = this.#put('library/artifact', 'latest', image)
    // OCI image specification, manifest.md, "Guidelines for Artifact Usage"
    const artifactType = 'application/vnd.example.sbom'
    const config = contentOf(mediaType.empty, Buffer.from('{}'))
    const sbom = jsonContent('application/vnd.example.sbom.v1+json', { packages: [{ name: 'artifact', version: '1' }] })
    const manifest = jsonContent(mediaType.manifest, {
      schemaVersion: 2,
      mediaType: mediaType.manifest,
      artifactType,
      config: descriptorOf(config),
      layers: [descriptorOf(sbom)],
      subject: descriptorOf(image.manifest),
    })
    repository.manifests.set(manifest.digest, manifest)
    for (const blob of [config, sbom]) repository.blobs.set(blob.digest, blob)
    repository.referrers.set(image.digest, [{ ...descriptorOf(manifest), artifactType }])
  }

  #put(name: string, tag: string | undefined, made: Image | Index): Repository {
    const repository = this.#repository(name)
    for (const image of 'images' in made ? made.images : [made]) {
      repository.manifests.set(image.digest, image.manifest)
      for (const blob of [image.config, ...image.layers]) repository.blobs.set(blob.digest, blob)
      this.#images.set(image.digest, image)
      if (image.platform.architecture === here.architecture) this.#images.set(made.digest, image)
    }
    repository.manifests.set(made.digest, made.manifest)
    if (tag !== undefined) repository.tags.set(tag, made.digest)
    return repository
  }

  #repository(name: string): Repository {
    let repository = this.repositories.get(name)
    if (!repository) {
      repository = {
        name,
        private: false,
        tags: new Map(),
        manifests: new Map(),
        blobs: new Map(),
        referrers: new Map(),
      }
      this.repositories.set(name, repository)
    }
    return repository
  }
}

function file(type: string, name: string): Promise<Layer> {
  return makeLayer(type, [{ name, body: `This is ${name}.\n` }])
}
