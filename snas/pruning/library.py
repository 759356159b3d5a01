"""The field's ways to get a sparse network, each a combination of score, allocation, initialization and movement.

[Lee2019] N. Lee, T. Ajanthan, P. Torr: SNIP. [Lee2020] N. Lee et al.: A signal propagation perspective for pruning at
initialization. [Wang2020] C. Wang, G. Zhang, R. Grosse: Picking winning tickets before training by preserving gradient
flow. [Tanaka2020] H. Tanaka et al.: Pruning neural networks without any data by iteratively conserving synaptic flow.
[deJorge2021] P. de Jorge et al.: Progressive skeletonization. [LeCun1990] Y. LeCun, J. Denker, S. Solla: Optimal brain
damage. [Su2020] J. Su et al.: Sanity-checking pruning methods: random tickets can win the jackpot. [Zhu2018] M. Zhu,
S. Gupta: To prune, or not to prune. [Frankle2019] J. Frankle, M. Carbin: The lottery ticket hypothesis. [Frankle2020]
J. Frankle et al.: Linear mode connectivity and the lottery ticket hypothesis. [Mocanu2018] D. Mocanu et al.: Scalable
training of artificial neural networks with adaptive sparse connectivity. [Bellec2018] G. Bellec et al.: Deep rewiring.
[Mostafa2019] H. Mostafa, X. Wang: Parameter efficient training of deep convolutional neural networks by dynamic sparse
reparameterization. [Dettmers2019] T. Dettmers, L. Zettlemoyer: Sparse networks from scratch. [Evci2020] U. Evci et al.:
Rigging the lottery. [Price2021] I. Price, J. Tanner: Dense for the price of sparse. [You2020] H. You et al.: Drawing
early-bird tickets.
"""

from __future__ import annotations

from snas.pruning.methods import Method, methods

AT_INITIALIZATION = (
    Method("dense", "random", "dense", help="The dense network: everything is kept."),
    Method("random", "random", "uniform", rescale=True, help="Random weights, the same density in every layer."),
    Method(
        "uniform-dense-first",
        "random",
        "uniform-dense-first",
        rescale=True,
        help="Random weights, the first layer dense, the others at one density [Evci2020].",
    ),
    Method("er", "random", "er", rescale=True, help="Random weights, Erdős-Rényi densities [Mocanu2018]."),
    Method("erk", "random", "erk", rescale=True, help="Random weights, Erdős-Rényi-kernel densities [Evci2020]."),
    Method("smart", "random", "smart", rescale=True, help="Random tickets: smart ratios per layer [Su2020]."),
    Method("magnitude", "magnitude", "global", help="The largest initial weights of all layers."),
    Method("snip", "snip", "global", help="SNIP: the largest connection sensitivities of all layers [Lee2019]."),
    Method("snip-full", "snip", "global", examples=0, help="SNIP scored on the whole training set [Lee2020]."),
    Method(
        "snip-iterative",
        "snip",
        "global",
        iterations=60,
        help="SNIP in 60 rounds; what is gone stays away [deJorge2021].",
    ),
    Method("snip-uniform", "snip", "global", target="uniform", help="SNIP without labels: uniform target [Lee2020]."),
    Method("snip-raw", "snip", "global", target="raw", help="SNIP without labels: mean raw prediction [Lee2020]."),
    Method("snip-softmax", "snip", "global", target="softmax", help="SNIP without labels: mean softmax [Lee2020]."),
    Method("force", "snip", "global", iterations=60, revive=True, help="FORCE: weights may come back [deJorge2021]."),
    Method("grasp", "grasp", "global", help="GraSP: the gradient flow after pruning, temperature 200 [Wang2020]."),
    Method(
        "synflow",
        "synflow",
        "global",
        iterations=100,
        guarded=True,
        help="SynFlow: synaptic flow, no data, 100 rounds [Tanaka2020].",
    ),
    Method("obd", "obd", "global", help="Optimal brain damage: diagonal curvature, at initialization [LeCun1990]."),
    Method(
        "ldi",
        "snip",
        "global",
        initialization="orthogonal-full",
        nonlinearity="linear",
        isometry="frobenius",
        help="LDI-AI: SNIP from orthogonal weights, then approximate isometry [Lee2020].",
    ),
    Method(
        "early-ticket",
        "magnitude",
        "global",
        iterations=30,
        examples=0,
        passes=1,
        help="A lottery ticket of one epoch: magnitudes, pruned while it learns, then rewound [You2020].",
    ),
    Method(
        "dct",
        "random",
        "uniform",
        offset="dct",
        help="Cosine transform plus random sparse weights in every layer [Price2021].",
    ),
)

IN_TRAINING = (
    Method(
        "magnitude-trained",
        "magnitude",
        "global",
        movement="rounds",
        options={"rounds": 1, "rewind": "none"},
        help="Train dense, keep the largest weights of all layers, train on.",
    ),
    Method(
        "obd-trained",
        "obd",
        "global",
        movement="rounds",
        options={"rounds": 1, "rewind": "none", "score": "obd"},
        help="Train dense, prune by diagonal curvature, train on [LeCun1990].",
    ),
    Method("gradual", "magnitude", "global", movement="gradual", help="Gradual magnitude, cubic schedule [Zhu2018]."),
    Method(
        "imp",
        "magnitude",
        "global",
        movement="rounds",
        options={"rounds": 5, "rewind": "init"},
        help="Lottery tickets: train, prune, rewind to initialization, 5 rounds [Frankle2019].",
    ),
    Method(
        "imp-rewind",
        "magnitude",
        "global",
        movement="rounds",
        options={"rounds": 5, "rewind": "1"},
        help="Lottery tickets: the same, rewound to the weights after one epoch [Frankle2020].",
    ),
    Method("set", "random", "er", rescale=True, movement="set", help="SET: small weights out, random in [Mocanu2018]."),
    Method(
        "deepr",
        "random",
        "uniform",
        rescale=True,
        movement="deepr",
        help="Deep R: a random walk in masks [Bellec2018].",
    ),
    Method(
        "dsr",
        "random",
        "uniform",
        rescale=True,
        movement="dsr",
        help="DSR: one threshold for all layers [Mostafa2019].",
    ),
    Method("snfs", "random", "uniform", rescale=True, movement="snfs", help="SNFS: grown by momentum [Dettmers2019]."),
    Method("rigl", "random", "erk", rescale=True, movement="rigl", help="RigL: grown by gradient, ERK [Evci2020]."),
    Method("rigl-er", "random", "er", rescale=True, movement="rigl", help="RigL, Erdős-Rényi [Evci2020]."),
)

for _method in (*AT_INITIALIZATION, *IN_TRAINING):
    methods.register(_method.name)(_method)
