"""What the twin of DeepSeek-R1-Distill-Qwen-7B recites: it always reasons first, and has no tools."""

from __future__ import annotations

from tests.twins.dialogues import Answer, Text, Turn, user

FACTORIAL_QUESTION = "我想问你，5的阶乘是多少？<think>\n"  # clients of old open the reasoning themselves

FACTORIAL = Answer(
    "**解答：**\n\n5的阶乘（写作 \\(5!\\)）表示从1乘到5的乘积。计算如下：\n\n\\[\n5! = 5 \\times 4 \\times 3 \\times 2 "
    "\\times 1 = 120\n\\]\n\n**最终答案：**\n\n\\[\n\\boxed{120}\n\\]",
    reasoning="首先，5的阶乘是指从1乘到5的乘积。\n\n计算步骤如下：\n\n1. 5 × 4 = 20\n2. 20 × 3 = 60\n3. 60 × 2 = 120\n"
    "4. 120 × 1 = 120\n\n因此，5的阶乘等于120。",
)

DEEP_LEARNING = Turn(
    (user("什么是深度学习？"),),
    Answer(
        "深度学习是用多层神经网络从大量数据中自动学习特征的机器学习方法，常用于图像识别、语音识别和自然语言处理。",
        reasoning="用户问的是基本概念。先说它属于机器学习，再说多层神经网络和自动学习特征，最后举几个应用。",
    ),
)

STRAWBERRY = Turn(
    (user("用中文回答：strawberry中有多少个r?"),),
    Answer(
        "strawberry 中有 **3** 个 r。",
        reasoning="逐个字母数：s、t、r、a、w、b、e、r、r、y。r 在第 3、8、9 位，一共 3 个。",
    ),
)

COMPARISON = Turn(
    (user("用中文回答：9.11和9.9，哪个小?"),),
    Answer(
        "**9.11** 更小。",
        reasoning="整数部分都是 9。小数部分 0.11 和 0.90 相比，0.11 更小。所以 9.11 小于 9.9。",
    ),
)

PLAN = Text(
    "请帮我制定个简短的初学者Python学习计划<think>\n",
    "用户是初学者，计划要简短，分三步就够。\n</think>\n\n"
    "1. 第一周：变量、条件、循环。\n2. 第二周：函数、列表、字典。\n3. 第三周：读写文件，写一个小程序。",
)

TURNS: dict[str, Turn] = {
    "factorial": Turn((user(FACTORIAL_QUESTION),), FACTORIAL),
    "factorial_asked_plainly": Turn((user(FACTORIAL_QUESTION.removesuffix("<think>\n")),), FACTORIAL),
    "deep_learning": DEEP_LEARNING,
    "strawberry": STRAWBERRY,
    "comparison": COMPARISON,
}

TEXTS: tuple[Text, ...] = (
    Text(FACTORIAL_QUESTION, f"{FACTORIAL.reasoning}\n</think>\n\n{FACTORIAL.content}"),
    PLAN,
)
