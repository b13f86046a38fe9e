"""fp32 graph → **fewer bits**, and the gate that lets it be served.

quantize   static int8 quantization, from end to end
ends       what keeps its floats, before the first layer and behind the last
layers     what several stages ask of a layer
pixels     the shortest way from bytes into the first layer
packing    the first layer reads four pixels at once
centering  channels around zero, so that their common range is narrow
ranges     what 8 bits have to span, tensor by tensor
rounding   each weight makes up for the last one's error
float16    half the bytes: as arithmetic on a GPU, or as storage alone
copies     channels that 8 bits cost much are computed several times
rescue     what is tried next: copies, and then layers in fp32
gate       is a smaller graph as good as the large one?
"""
