"""Tokenizers of one token per character, and chat templates as models in use have them."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerFast

SPECIAL = re.compile(r"<[|\uff5c][^|\uff5c]+[|\uff5c]>|\[/?[A-Z_]+\]|</?s>")

HERMES = """\
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + m.content }}
{%- for c in m.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- (c.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
{%- else %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

QWEN3 = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}{% for t in tools %}{{- t | tojson }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- set ns = namespace(query=-1) %}
{%- for m in messages %}
{%- if m.role == 'user' %}{% set ns.query = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- set thought = '' %}{% set said = m.content %}
{%- if '</think>' in said %}
{%- set thought = said.split('</think>')[0].replace('<think>', '').strip() %}
{%- set said = said.split('</think>')[-1].lstrip() %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.query and (loop.last or thought) %}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
{%- endif %}
{{- said }}
{%- for c in m.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- (c.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA3 = """\
{%- for m in messages %}
{%- if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{- raise_exception('one call at once') }}{% endif %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' }}
{{- m.tool_calls[0].function.name + '", "parameters": ' }}
{{- (m.tool_calls[0].function.arguments | tojson) + '}<|eot_id|>' }}
{%- elif m.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (m.content | tojson) + '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

MISTRAL = """\
{{- '<s>' }}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '[INST] ' + m.content + '[/INST]' }}
{%- elif m.tool_calls %}
{{- '[TOOL_CALLS] [' }}
{%- for c in m.tool_calls %}
{%- if c.id | length != 9 %}{{- raise_exception('an id has 9 characters') }}{% endif %}
{{- '{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) }}
{{- ', "id": "' + c.id + '"}' + ('' if loop.last else ', ') }}
{%- endfor %}
{{- ']</s>' }}
{%- elif m.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + (m.content | tojson) + ', "call_id": "' + m.tool_call_id }}
{{- '"}[/TOOL_RESULTS]' }}
{%- else %}{{- ' ' + m.content + '</s>' }}
{%- endif %}
{%- endfor %}"""

SMOLLM2 = """\
{%- for m in messages %}
{%- if loop.first and m.role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful AI assistant.<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

COMPACT = """\
{%- for m in messages %}
{{- m.content }}{% if m.role == 'assistant' %}{{- eos_token }}{% endif %}
{%- endfor %}"""

NO_END = """\
{%- for m in messages %}
{%- if m.role == 'tool' %}{{- '<|observation|>\\n' + m.content }}
{%- else %}
{{- '<|' + m.role + '|>\\n' + m.content }}
{%- for c in m.tool_calls or [] %}
{{- '<call>' + c.function.name + (c.function.arguments | tojson) + '</call>' }}
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"""

LAST_ENDS_OTHERWISE = """\
{%- for m in messages %}
{{- '<|start|>' + m.role + '<|message|>' + m.content }}
{{- '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}"""

PLAIN = """\
{%- for m in messages %}{{- m.role + ': ' + m.content + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{% endif %}"""

NO_TOOLS = """\
{%- for m in messages %}
{%- if m.role in ('user', 'assistant') %}
{{- '<|' + m.role + '|>' + m.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"""

ALTERNATES = """\
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles alternate') }}
{%- endif %}
{{- '<|' + m.role + '|>' + m.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"""


def tokenizer(template: str | None, *more: str) -> PreTrainedTokenizerFast:
    """One token per ASCII character, the special tokens of the template, and further ones."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    named = sorted({"<|user|>", "<|assistant|>", "<|observation|>", *more})
    special = sorted({*named, *SPECIAL.findall(template or "")} - {"<s>", "</s>"})
    texts = ["<unk>", "<s>", "</s>", *special, *map(chr, range(32, 127)), "\n"]
    vocabulary = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    out = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special,
        clean_up_tokenization_spaces=False,
    )
    out.chat_template = template
    return out
