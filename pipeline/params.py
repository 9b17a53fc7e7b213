"""Parameters: `params.yaml` as typed, frozen values, each declared once.

One section a stage; an empty file is a valid one. Defaults are those of the demo, except where
drawings and photographs differ: there they are for photographs, and its preset differs.
Allowed values, messages, params.yaml and docs/parameters.md follow from the declarations
(`make generated`).
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from kd3_pipeline.memory import MEGABYTES
from kd3_pipeline.registry import OBJECTIVES, SEARCH_ENGINES, OneOf


@dataclass(frozen=True)
class Either:
    """Annotation of a parameter of several kinds: in words, what an error says was expected."""

    words: str
    renamed: tuple[tuple[Any, str], ...] = ()  # values of earlier versions, and what they are now


Rgb = Annotated[tuple[float, float, float], Field(strict=False)]
Positive = Annotated[float, Field(gt=0)]
PositiveRgb = Annotated[tuple[Positive, Positive, Positive], Field(strict=False)]
LeakRatio = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="a web image is a test image up to this share of the distance to that one's "
        "nearest other test image; lower where test images are nearly alike and it errs",
    ),
]
HUB = "torch.hub:"  # before the names of networks that a torch.hub function builds
Columns = Annotated[
    dict[Literal["image", "label", "style"], str],
    Field(description="columns of a .parquet file by their role, as `image: img, label: fine`"),
]
Broken = Annotated[
    float,
    Field(ge=0, le=1, description="largest share of images that cannot be read; they are told"),
]
Count = Annotated[
    Annotated[int, Field(ge=0)] | Literal["auto"], Either("a whole number of images, or auto")
]
DRAWN_TO_TRAIN, DRAWN_TO_TEST = 4000, 2000  # of the demo's drawings
SIDES = 4  # of the teacher's input: a picture of so many is enough for all that is made of it
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
Sampling = Literal["uniform", "moments", "balanced"]
OptOut = Literal[
    "x-robots-tag",
    "tdm-reservation",
    "content-signal",
    "content-usage",
    "rsl",
    "data-mining",
    "c2pa",
]
Issue = Literal[
    "blurred", "dark", "light", "odd_aspect", "grey", "text", "collage", "tiny_subject", "nsfw"
]


def _drawn(images: int | str, source: str, of_demo: int) -> int:
    """What a `Count` means for a labelled set."""
    if isinstance(images, int):
        return images
    return of_demo if source == "demo" else 0


class Section(BaseModel):
    """A section of `params.yaml`: no unknown key, no silent conversion, no change after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Crawl(Section):
    classes: Annotated[
        str | list[str] | dict[str, Any],  # what is in the mapping: kd3_pipeline.classes.entries
        Either("a set's name, names, or names with lists of queries"),
    ] = Field(
        "shapes10",
        description="a named set (cifar10, cifar100, shapes10), a YAML file, names separated by "
        "commas, a list of names, or names with their search queries, `synonyms` and `contexts` "
        "(docs/classes.md)",
    )
    engine: Annotated[
        str, OneOf(("auto", *SEARCH_ENGINES.entries, "captions", "site", "urls", "files", "demo"))
    ] = Field(
        "auto",
        description="where images come from; `auto` is the demo for sets that only the demo has, "
        f"else bing. {SEARCH_ENGINES.meanings()}; `captions`: tables of captions and addresses, "
        "as LAION's; it, `site`, `urls` and `files` read `source`",
    )
    source: str = Field(
        "",
        description="engine `files`: a folder, a .tar or .parquet file, as docs/files.md has them; "
        "`urls`: a .txt, .csv, .tsv, .jsonl or .parquet file; `site`: the address of a page; "
        "`captions`: a .parquet, .csv or .tsv file, a folder of them, or a pattern",
    )
    columns: Columns = {}
    licence: Literal["any", "creative-commons", "commercial", "modify", "public-domain"] = Field(
        "any",
        description="only results that the engine calls so; `commercial`: also for commercial "
        "use, `modify`: also to be changed",
    )
    per_class: int = Field(400, ge=1, description="distinct images wanted for each class")
    sample: int = Field(
        0, ge=0, description="engine `files`: images to take, drawn by `seed`; 0 takes all"
    )
    depth: int = Field(2, ge=0, le=8, description="engine `site`: links to follow in a row")
    min_side: int = Field(16, ge=1, description="smaller images are refused (pixels)")
    max_bytes: int = Field(20 * 2**20, ge=1024, description="larger answers are refused (bytes)")
    picture_memory: int = Field(
        MEGABYTES,
        ge=50,
        le=2000,
        description="largest memory (MB) that a process, of this stage or a later one, may take "
        "for one picture while it decodes it; what takes more in full comes at half its size, or "
        "is refused: a WebP of over 16 million pixels, an AVIF of over 13. 1200 keeps all of 50 "
        "million, and costs as much in each process that decodes",
    )
    unsafe: Literal["refuse", "keep"] = Field(
        "refuse",
        description="engine `captions`: rows that their table marks as unsafe (`NSFW`, `punsafe`)",
    )
    placeholder_urls: int = Field(
        5,
        ge=0,
        description="an image that one site gives at so many paths, from as many pages, may say "
        "“no longer available”: it is put aside if it is in a few flat colours, comes for three "
        "classes, or all were redirected to it; 0 keeps them",
    )
    damaged: Literal["refuse", "keep"] = Field(
        "refuse",
        description="JPEGs that decode, but of which libjpeg says that data is missing or was "
        "overwritten: part of the picture is grey, of other colours, or in another place",
    )
    connections_per_host: int = Field(2, ge=1, le=16, description="downloads at once from one host")
    host_gap: float = Field(
        0.5,
        ge=0,
        description="pause between two requests to one host (seconds); the demo's hosts need none",
    )
    timeout: float = Field(30.0, gt=0, description="longest time for one image (seconds)")
    robots: bool = Field(True, description="obey robots.txt")
    opt_outs: Annotated[
        Literal["all", "none"] | list[OptOut],
        Either(
            f"all, none, or a list of some of {', '.join(get_args(OptOut))}",
            renamed=((True, "all"), (False, "none")),
        ),
    ] = Field(
        "all",
        description="the opt-outs that are obeyed besides robots.txt: all, none, or some of them; "
        "docs/opt-outs.md says what each is",
    )
    ai_agents: bool = Field(
        False,
        description="take a site whose robots.txt shuts out the well-known crawlers of AI "
        "companies by name for closed",
    )
    blocklist: str = Field(
        "",
        description="a file of hosts and hashes of images (SHA-256, or 64 bits of `phash`), one a "
        "line, that are refused before anything is stored",
    )
    patience: float = Field(
        600.0,
        ge=0,
        description="longest pause that a host or an engine may ask for and gets (seconds); what "
        "needs a longer one is left to the next run",
    )
    canary: bool = Field(
        True,
        description="before a search, two unrelated queries must bring different addresses; and "
        "two classes that are given the same ones stop it",
    )
    filters: bool = Field(
        True, description="vary a query that has no more results by the engine's own filters"
    )
    expand: Literal["all", "listed", "none"] = Field(
        "all",
        description="then by the synonyms and contexts of the class set (`listed`), and by "
        "contexts made from templates (`all`)",
    )
    rounds: int = Field(
        0,
        ge=0,
        le=10,
        description="rounds by coverage: the teacher says which classes are starved, and more is "
        "asked for them; needs models/teacher",
    )
    side: Annotated[
        Annotated[int, Field(ge=0)] | Literal["auto"], Either("a whole number of pixels, or auto")
    ] = Field(
        "auto",
        description="take an engine's smaller picture instead of the original, of at least so "
        "many pixels a side; `auto` is four times `teacher.input_size`, 0 takes originals",
    )
    empty_classes: Literal["refuse", "keep"] = Field(
        "refuse", description="end with exit code 3 if a class has no image; the others are kept"
    )
    referer: bool = Field(
        False,
        description="send the page where an image was found, as `Referer`: some hosts answer a "
        "placeholder, or 403, without",
    )
    contact: str = Field(
        "",
        description="your address or page, sent in the user agent (what is not ASCII in escapes, "
        "as in addresses)",
    )
    proxy: str = Field(
        "",
        description="an HTTP proxy, `http://HOST:PORT`, through which all is asked; its name and "
        "password are in the environment variable CRAWL_PROXY_LOGIN (docs/addresses.md)",
    )
    seed: Seed = Field(0, description="seed of the demo's web and of `sample`")


class Dedup(Section):
    hash: Literal["phash", "dhash", "ahash", "whash", "crop_resistant"] = Field(
        "phash", description="perceptual hash, as defined by imagehash (64 bits)"
    )
    exact_hash: bool = Field(
        False, description="the library's own hashes, from images decoded in full size: slower"
    )
    radius: Annotated[
        Annotated[int, Field(ge=0, le=16)] | Literal["auto"],
        Either("a whole number from 0 to 16, or auto"),
    ] = Field(
        "auto",
        description="Hamming distance up to which two pictures are compared (bits); `auto` "
        "shrinks from 14 as the images grow in number",
    )
    similarity: float = Field(
        0.7,
        ge=0,
        le=1,
        description="pictures whose worst part agrees so well are one (correlation after "
        "alignment); 0 believes the hashes alone",
    )
    second_look: bool = Field(
        True,
        description="compare pairs part by part and in colour, in close-ups of the images; false: "
        "edges of the whole pictures alone decide",
    )
    low_information: Literal["drop", "keep"] = Field(
        "drop", description="what to do with images that show nothing, as one colour all over"
    )
    blank_range: int = Field(
        16,
        ge=0,
        le=254,
        description="images show nothing if no channel varies by more over all pixels (levels of "
        "255; JPEG makes less of one colour)",
    )
    turned: bool = Field(
        True,
        description="find copies turned by 90° or 180°, too: the search takes 1.7 times as long",
    )
    similarity_across: float = Field(
        0.9,
        ge=0,
        le=1,
        description="the same, for pictures found for different classes: less alike, both are kept",
    )
    compared: int = Field(
        64,
        ge=0,
        description="kept images with which an image is compared on pixels, the nearest; 0 is all "
        "within `radius`",
    )
    drop: list[Issue] = Field(
        [],
        description="issues for which images are dropped; all are counted, and kept unless named "
        "here. `nsfw` needs the extra of that name, and is only looked for if named",
    )
    blurred_below: float = Field(
        0.33,
        ge=0,
        le=1,
        description="issue `blurred`: so little of an edge's height is between two neighbouring "
        "pixels, at 128 to 255 of the shorter side (sharp pictures have 0.4 to 1)",
    )
    dark_below: float = Field(
        0.33, ge=0, le=1, description="issue `dark`: 9 in 10 pixels are darker (white is 1)"
    )
    light_above: float = Field(
        0.68, ge=0, le=1, description="issue `light`: 99 in 100 pixels are brighter (white is 1)"
    )
    odd_aspect: float = Field(
        2.8, ge=1, description="issue `odd_aspect`: the longer side by the shorter one is more"
    )
    tiny_subject_below: float = Field(
        0.06,
        ge=0,
        le=1,
        description="issue `tiny_subject`: all there is on a plain ground has less of the area",
    )
    nsfw_above: float = Field(
        0.8, ge=0, le=1, description="issue `nsfw`: the network gives more (0 to 1)"
    )
    leaks: bool = Field(
        False, description="find the images of `evaluate.test_set` in the crawl and drop them"
    )
    leak_similarity: float = Field(
        0.8, ge=0, le=1, description="`leaks`: an image so like a test image may be that image"
    )
    leak_ratio: LeakRatio = 0.5


class Teacher(Section):
    source: Literal["train", "file", "torch.hub", "hub", "timm", "torchvision"] = Field(
        "train",
        description="`train` trains on the labelled `data`; `file` reads `path`; `torch.hub` and "
        "`hub` (Hugging Face) read from `repository`; `timm` and `torchvision` have pretrained "
        "`weights` of their `architecture`",
    )
    path: str = Field("", description="source `file`: weights (.safetensors or .pt)")
    repository: str = Field(
        "",
        description="sources `torch.hub` and `hub`: owner/name:commit; `torch.hub` also: a folder",
    )
    weights: str = Field(
        "",
        description="`torch.hub`: the function that makes the network; `hub`: a file in the "
        "repository (empty: model.safetensors or pytorch_model.bin); `timm`, `torchvision`: their "
        "name, as a1_in1k or IMAGENET1K_V1; `file`: which of several state dicts in it, as ema",
    )
    sha256: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{8,64})?$")] = Field(
        "",
        description="SHA-256 of the file, or 8 digits of it or more; empty: not checked, only "
        "told (`torch.hub`: of the state dict as safetensors)",
    )
    trust: bool = Field(
        False,
        description="run the code of `repository` (source `torch.hub`), or of an `architecture` of "
        "one's own, on this machine",
    )
    architecture: str = Field(
        "resnet20",
        description="network of the teacher, as resnet56, chenyaofo/vgg16_bn, torchvision/resnet18 "
        "or timm/resnet18; one's own: package.module:function or file.py:Class (`trust`)",
    )
    options: dict[str, Any] = Field(
        {},
        description="keyword options of the architecture's function or class, as width_mult; "
        "`head`: the activation between last layers that a file's keys tell (ReLU), or all of "
        "these layers (docs/teacher-files.md)",
    )
    channels: Literal[3, 1] = Field(
        3, description="of the network's input; 1: the images' brightness"
    )
    order: Literal["rgb", "bgr"] = Field(
        "rgb", description="of the colours that the network takes; `mean` and `std` stay RGB"
    )
    output: str = Field(
        "",
        description="of a program (ONNX, TorchScript, torch.export) with several outputs: the one"
        " that holds the logits, by name or place",
    )
    class_names: Annotated[str | list[str], Either("names, or the path of a file of them")] = Field(
        [],
        description="names of the outputs, in order, or a file of them (docs/files.md); empty: "
        "those that `weights` or `data` have, else class 0, class 1, …",
    )
    data: str = Field(
        "demo",
        description="source `train`: `demo`, `cifar10` or `cifar100` (torchvision), a .parquet "
        "file or a folder of class folders",
    )
    images: Count = Field(
        "auto",
        description="source `train`: how many to use, drawn by `seed`; 0 is all; `auto`: "
        f"{DRAWN_TO_TRAIN:,} of the demo's, all of other data",
    )
    columns: Columns = {}
    broken: Broken = 0.05
    input_size: int = Field(32, ge=8, le=512, description="side of the network's input (pixels)")
    mean: Rgb = Field((0.5, 0.5, 0.5), description="mean that the teacher expects (RGB, 0 to 1)")
    std: PositiveRgb = Field((0.25, 0.25, 0.25), description="deviation that the teacher expects")
    epochs: int = Field(8, ge=1, description="source `train`: passes over the data")
    batch_size: int = Field(128, ge=2, description="source `train`: images a step")
    lr: float = Field(0.2, gt=0, description="source `train`: peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="source `train`: weight decay of SGD")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="source `train`: share of a label spread over all classes"
    )
    flip: bool = Field(False, description="source `train`: mirrored images mean the same class")
    cutout: int = Field(
        0, ge=0, le=512, description="source `train`: side of the square blanked in each image"
    )
    seed: Seed = Field(0, description="seed of training and of the demo's drawings")
    device: Device = Field("auto", description="where to train")
    precision: Precision = Field(
        "auto", description="of products; `auto` is bfloat16 where the hardware has it"
    )

    @property
    def drawn(self) -> int:
        """How many images of `data` are used; 0 is all."""
        return _drawn(self.images, self.data, DRAWN_TO_TRAIN)

    @property
    def hub_network(self) -> str:
        """Name by which `kd3_pipeline.models.build` knows a torch.hub function's own network."""
        return f"{HUB}{self.repository}:{self.weights}"


class Embed(Section):
    size: int = Field(
        0,
        ge=0,
        le=1024,
        description="side of the stored pixels, of which the teacher sees the centre and training "
        "takes crops (256 for a teacher of 224); 0: the teacher's `input_size`",
    )
    store: Literal["raw", "jpeg"] = Field(
        "raw", description="pixels as they are, or as JPEG: about a sixth of the space"
    )
    jpeg_quality: int = Field(90, ge=50, le=100, description="store `jpeg`: its quality")
    batch_size: int = Field(
        256, ge=1, description="images a teacher pass; a CPU takes them in smaller parts"
    )
    fit: Literal["crop", "squash"] = Field(
        "crop", description="`crop` the centre square of an image, or `squash` it to a square"
    )
    crops: int = Field(
        1,
        ge=1,
        le=4,
        description="views of each image to train on: the whole, and crops of 0.7, 0.5 and 0.35 of "
        "its side on which the teacher is surest of the whole's class, where it is larger than "
        "what is stored; 1: the whole alone",
    )
    device: Device = Field("auto", description="where the teacher runs")
    precision: Precision = Field(
        "auto", description="of products; `auto` is bfloat16 where the hardware has it"
    )
    index: Literal["auto", "flat", "ivf", "hnsw", "ivfpq"] = Field(
        "auto",
        description="of FAISS: `flat` is exact, `ivf` and `hnsw` are fast with many images, "
        "`ivfpq` is small and often wrong; `auto`: by the number of images and features",
    )
    off_topic: bool = Field(
        True, description="score each image from 0 to 1: how little it looks like any class"
    )
    redundant: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each class's images to mark as redundant, those that the teacher "
        "sees as most like others; 0 looks for none",
    )
    coverage: bool = Field(
        True, description="count the classes asked for beside those that the teacher sees"
    )
    shift: bool = Field(
        True, description="measure how far the images are from what the teacher was trained on"
    )
    moments: bool = Field(
        False,
        description="weigh the images so that together they have the moments that the teacher's "
        "batch norms remember of its training, for `distill.sampling`",
    )
    refine: int = Field(
        0,
        ge=0,
        le=1000,
        description="steps that bring the pixels near the moments which the teacher's batch norms "
        "remember, for training alone: stored once more (docs/refined.md); 0: none",
    )
    refine_images: int = Field(
        0,
        ge=0,
        description="refine: so many images, those of each class that the teacher is surest of, to "
        "train on these alone; 0: all",
    )
    refine_rate: float = Field(
        0.05, gt=0, description="refine: of Adam, in deviations of the teacher's input a step"
    )
    refine_keep: float = Field(
        0.05, ge=0, description="refine: weight of the squared change of a pixel"
    )
    refine_batch: int = Field(
        250, ge=2, description="refine: images, from all over the crawl, that meet them together"
    )


class Distill(Section):
    objective: Annotated[str, OneOf(tuple(OBJECTIVES.entries))] = Field(
        "kd3", description=OBJECTIVES.meanings()
    )
    student: str = Field(
        "resnet8",
        description="network of the student, by the names that `teacher.architecture` has; one's "
        "own: package.module:function or file.py:Class (`trust`)",
    )
    student_options: dict[str, Any] = Field(
        {}, description="keyword options of the student's function or class"
    )
    student_weights: str = Field(
        "",
        description="where the student starts, but for its classifier: `default` or a name of "
        "torchvision's or timm's weights, or a file; empty: random",
    )
    trust: bool = Field(False, description="run the code of a `student` of one's own")
    epochs: int = Field(
        20, ge=1, description="passes; schedules stretch with it (240 as published)"
    )
    budget: Annotated[
        Annotated[str, Field(pattern=r"^((\d+(\.\d+)?[hms])+|[1-9]\d* steps)?$")],
        Either("a time such as 45s, 90m or 1h30m, steps such as 9000 steps, or nothing"),
    ] = Field(
        "",
        description="in place of `epochs`: a time, as 90m or 2h, of which the steps are worked out "
        "from the speed measured at the start; or steps, as `9000 steps`",
    )
    batch_size: int = Field(128, ge=2, description="images a step")
    lr: Annotated[
        Annotated[float, Field(gt=0)] | Literal["auto"], Either("a number above 0, or auto")
    ] = Field(0.6, description="peak learning rate; `auto` finds one by short runs, without labels")
    schedule: Literal["onecycle", "step"] = Field(
        "onecycle", description="`step`: ×0.1 at 5/8, 3/4 and 7/8 of the epochs, as published"
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="`adamw` is usual for transformers, at an `lr` near 0.001"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay of the optimizer")
    clip: float = Field(0.0, ge=0, description="longest gradient, as a norm over all; 0: any")
    accumulate: int = Field(
        1, ge=1, description="passes that a batch is split into where memory is short"
    )
    teacher_views: int = Field(
        0,
        ge=0,
        le=64,
        description="views of each image on which the teacher is asked once, before training; "
        "1 is the whole image, and each crop that embed.crops kept; 0 asks it at every step",
    )
    views_bits: Literal[8, 16] = Field(
        16, description="stored views: bits of a number of the teacher's features"
    )
    mix: Literal["none", "mixup", "cutmix", "half"] = Field(
        "none",
        description="function matching: both networks see images mixed of two, by `mixup`, "
        "`cutmix`, or mixup of every second one (`half`)",
    )
    ema: Annotated[
        Annotated[float, Field(ge=0, lt=1)] | Literal["auto"],
        Either("a number from 0 to less than 1, or auto"),
    ] = Field(
        0.0,
        description="decay of averaged weights; `auto`: a memory that grows with the steps behind; "
        "0: no average",
    )
    keep: Literal["last", "agreement"] = Field(
        "last",
        description="epoch to deploy: the `last`, or that of best `agreement` with the teacher on "
        "held-out images",
    )
    selection: Literal["dynamic", "confident", "none"] = Field(
        "dynamic",
        description="images to train on: `dynamic` selection of KD3, those of which the teacher "
        "is most `confident`, or all (`none`)",
    )
    cutoff: float = Field(0.95, gt=0, le=1, description="selection: τ, the highest threshold")
    teacher_floor: float = Field(
        0.5, ge=0, le=1, description="selection: smallest weight of the teacher (0 as published)"
    )
    confident_share: float = Field(
        0.5, gt=0, le=1, description="selection `confident`: share of the images"
    )
    judge: Literal["whole", "random"] = Field(
        "whole",
        description="selection judges the `whole` image, or a `random` crop that changes from "
        "epoch to epoch (published)",
    )
    sampling: Sampling = Field(
        "uniform",
        description="how an epoch draws among what is selected: each image once, by the weights of "
        "`embed.moments`, or the classes of the teacher's answers alike (`balanced`)",
    )
    refill: bool = Field(
        True, description="as many steps an epoch as if all were kept; `false` as published"
    )
    alignment: bool = Field(
        True, description="meet the teacher's features and share its classifier"
    )
    weighting: bool = Field(True, description="alignment: weigh images by disagreement")
    feature_loss: Literal["mean", "relative", "standardised"] = Field(
        "mean",
        description="alignment: `mean` square (published), `relative` to the teacher's features, "
        "or `standardised`: relative to the variance of each of its channels",
    )
    feature_weight: float = Field(1.0, gt=0, description="alignment: weight of the feature term")
    logit_weight: float = Field(0.0, ge=0, description="weight of a KL term on logits")
    kd_temperature: float = Field(4.0, gt=0, description="softening of logits in KL terms")
    mixing: bool = Field(True, description="contrast images with their MixDistribution views")
    mixing_alpha: float = Field(0.1, gt=0, description="mixing: λ ~ Beta(α, α)")
    contrast_weight: float = Field(0.001, ge=0, description="mixing: weight of the contrast term")
    contrast_temperature: float = Field(0.3, gt=0, description="mixing: temperature of NT-Xent")
    disagreement: float = Field(
        0.0,
        ge=0,
        le=64,
        description="in the last fifth of the steps, move each pixel by so many levels of 255 to "
        "where student and teacher disagree more; 0: not at all",
    )
    crop: Literal["pad", "resized", "none"] = Field(
        "pad", description="`pad` by an eighth and crop; `resized` is RandomResizedCrop, published"
    )
    crop_scale: float = Field(
        0.08, gt=0, le=1, description="crop `resized`: smallest share of the image (area)"
    )
    flip: bool = Field(False, description="mirror half of the images")
    off_topic_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="scale an image's loss by 1 − weight × its `off_topic` score of embed",
    )
    skip_redundant: bool = Field(
        False, description="do not train on images that `embed.redundant` marks"
    )
    refined: bool = Field(
        True, description="train on refined images where `embed.refine` left them"
    )
    held_out: float = Field(
        0.03, ge=0, lt=0.5, description="share of web images never trained on, for agreement"
    )
    pixels: Literal["auto", "resident", "streamed"] = Field(
        "auto", description="on the device, or read from disk; `auto`: on the device if they fit"
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto", description="torch.compile; `auto`: on a GPU"
    )
    tensorboard: str = Field(
        "", description="folder for the curves in TensorBoard's format (extra `tensorboard`)"
    )
    seed: Seed = Field(0, description="seed of weights, crops and order")
    device: Device = Field("auto", description="where to train")
    precision: Precision = Field(
        "auto", description="of products; `auto` is bfloat16 where the hardware has it"
    )

    @property
    def starts_from_file(self) -> bool:
        """Tells whether `student_weights` is a path: names have neither a dot nor a slash."""
        return bool(re.fullmatch(r".*\W.*", self.student_weights))


class Evaluate(Section):
    test_set: str = Field(
        "demo",
        description="`demo`, `cifar10` or `cifar100` (torchvision), a folder of class folders, a "
        ".parquet or .tar file, or another layout of docs/files.md",
    )
    images: Count = Field(
        "auto",
        description="how many to use, drawn by `seed`; 0 is all; `auto`: "
        f"{DRAWN_TO_TEST:,} of the demo's, all of other test sets",
    )
    columns: Columns = {}
    broken: Broken = 0.05
    class_names: Annotated[
        str | list[str] | dict[str | int, str],
        Either("names, a mapping to the teacher's names, or the path of a file of them"),
    ] = Field(
        [],
        description="what the test set's labels mean: names by number, or by the names that it "
        "has, as `Dog: dog`, or a file of them (docs/files.md); empty: its own names",
    )
    alike_names: bool = Field(
        False,
        description="take names that differ in case, spaces, underscores and hyphens alone for one "
        "class where that leaves no choice; else they are an error that offers them",
    )
    batch_size: int = Field(256, ge=1, description="images a pass")
    corruptions: bool = Field(
        False,
        description="also measure under the 15 common corruptions at 5 severities: 75 times the "
        "passes",
    )
    styles: str = Field(
        "",
        description="also measure on other styles: a folder of STYLE/CLASS/ folders, or a .parquet "
        "file with columns image, label and style or domain; classes by name",
    )
    latency: bool = Field(
        True, description="time both networks for some seconds; these figures change at every run"
    )
    allow_contaminated: bool = Field(
        False, description="go on when test images are among those that trained the student"
    )
    leak_ratio: LeakRatio = 0.5
    seed: Seed = Field(0, description="seed of the demo's drawings and of the corruptions")
    device: Device = Field("auto", description="where to evaluate")

    @property
    def drawn(self) -> int:
        """How many images of `test_set` are used; 0 is all."""
        return _drawn(self.images, self.test_set, DRAWN_TO_TEST)


class Export(Section):
    formats: list[Literal["safetensors", "onnx", "onnx-fp16", "torch", "litert"]] = Field(
        ["safetensors", "onnx", "torch"],
        description="files to ship; `onnx-fp16` is made of `onnx`, "
        "with numbers of 16 bits inside; `torch` is a program of torch.export; `litert` needs the "
        "extra `litert`; safetensors are always written",
    )
    input: Literal["uint8", "float"] = Field(
        "uint8",
        description="what all files but safetensors take: RGB bytes [N, S, S, 3], or `float`s from "
        "0 to 1 [N, 3, S, S]; docs/runtimes.md says which runtime takes which",
    )
    int8: Literal["none", "dynamic", "static"] = Field(
        "none",
        description="also an ONNX file of 8 bits: ranges found in each batch (`dynamic`), or "
        "fixed by web images (`static`)",
    )
    int8_agreement: float = Field(
        0.95,
        ge=0,
        le=1,
        description="smallest share of web images, others than those that fixed the ranges, on "
        "which the file of 8 bits has the student's class; 0 ships it in any case",
    )
    disagreeing: Literal["leave-out", "refuse"] = Field(
        "leave-out",
        description="a file of 8 or 16 bits that is too far from the student: `leave-out` ships "
        "the others and says so, `refuse` ships nothing",
    )
    runtimes: list[Literal["openvino", "opencv", "mnn", "ncnn"]] = Field(
        [],
        description="also try model.onnx in these, which have to be installed, and tell in the "
        "card how far each is from the student (docs/runtimes.md)",
    )
    images: int = Field(256, ge=256, description="images on which every file is compared")
    licence: str = Field(
        "",
        description="licence of the student, as the model hub identifies it (`mit`, `cc-by-4.0`, "
        "`other`); empty: none is stated",
    )
    licence_name: str = Field(
        "", description="licence `other`: its name, in the hub's way: my-terms"
    )
    licence_link: str = Field(
        "", description="licence `other`: its address, or the name of a file, as LICENSE"
    )


class Report(Section):
    thumbnails: int = Field(60, ge=1, le=75, description="images shown in each gallery")
    map_images: int = Field(
        2000, ge=0, le=4000, description="images on the map of the teacher's features; 0: no map"
    )
    seed: Seed = Field(0, description="seed that draws the images shown")


class Params(Section):
    """All of `params.yaml`."""

    crawl: Crawl = Crawl()
    dedup: Dedup = Dedup()
    teacher: Teacher = Teacher()
    embed: Embed = Embed()
    distill: Distill = Distill()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
    report: Report = Report()

    @property
    def picture_side(self) -> int:
        """Pixels of the shorter side that the crawl asks engines for; 0 is the original."""
        side = self.crawl.side
        return SIDES * self.teacher.input_size if side == "auto" else side
