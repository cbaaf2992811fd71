import re

import pytest

from ipse.errors import WorldError
from ipse.world.caption import article, captions, facts, join, shown_expression, subject
from ipse.world.look import Bag, Garment, Glasses, Hat, Look, look
from ipse.world.parts import LABELS
from ipse.world.person import Person, person
from ipse.world.shot import EXPRESSIONS, FRAMINGS, Shot, expression, shot

ADULT = Person(gender=0.95, age=35, beard_density=0.9)
SEEN = dict.fromkeys(LABELS, 0.05)


def all_words(*picture, **options):
    return " ".join(captions(*picture, n=12, **options)).lower()


def samples(count):
    for n in range(count):
        for framing in FRAMINGS:
            who = person(n)
            yield who, look(n, who), shot(n, framing, hard=n % 3 == 0), framing


@pytest.mark.parametrize("visible", [None, SEEN, set(LABELS)], ids=["unknown", "shares", "labels"])
def test_grammar(visible):
    for picture in samples(60):
        for text in captions(*picture, visible=visible, n=4):
            assert re.fullmatch(r"[A-Z][A-Za-z ,'.-]+\.", text), text
            assert not re.search(r"\b[Aa] [aeiouAEIOU]", text), text
            assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", text), text
            assert not re.search(r"\ban? (trousers|jeans|shorts|leggings|glasses|sunglasses|shoes)\b", text), text
            assert not re.search(r"  | [,.]|,,|\.\.|,\.| and\.| and and | with [.,]|none|unclear", text), text
            assert not re.search(r"[.] [a-z]", text), text
            for word in ("and", "is", "are", "with", "a", "an", "the"):
                assert not re.search(rf"\b{word} {word}\b", text), text
            assert not re.search(r"\b[Tt]hey (is|has)\b|\b([Ss]?[Hh]e) (are|have)\b", text), text


def test_phrasings_differ_and_are_repeatable():
    different = 0
    for picture in samples(25):
        texts = captions(*picture, n=3)
        assert len(set(texts)) == len(texts)
        assert texts == captions(*picture, n=3)
        different += texts != captions(*picture, n=3, seed=1)
        assert len(texts) == 3, texts
    assert different > 90


def test_the_first_caption_has_every_fact():
    who = Person(gender=0.02, age=30)
    worn = Look(glasses=Glasses("round"), hat=Hat("cap", "orange"), scarf="green").replace(
        **{"hair.style": "long", "hair.length_m": 0.4}
    )
    taken = Shot(expression=expression("smile"), head={"yaw": -35}, degrade={"noise": 0.05}).replace(
        **{"light.key_azimuth_deg": 60, "light.key": 1.0, "background.kind": "park"}
    )
    text = captions(who, worn, taken, "bust", n=1)[0]
    for words in (
        "young woman",
        "medium-toned skin",
        "brown hair",
        "round glasses",
        "an orange cap",
        "a green scarf",
        "a white T-shirt",
        "smiling",
        "turned to the left",
        "park",
        "from the right",
        "grainy",
    ):
        assert words in text, (words, text)


def test_framing_limits_what_is_said():
    worn = Look(bag=Bag("handbag", "red"), bottom=Garment("skirt", "pink"), shoes="turquoise")
    for framing in ("portrait", "bust", "ear"):
        text = all_words(ADULT, worn, Shot(), framing)
        for word in ("skirt", "handbag", "shoes", "turquoise", "pink", "standing"):
            assert word not in text
    text = all_words(ADULT, worn, Shot(expression=expression("smile")), "person")
    assert all(word in text for word in ("pink skirt", "red handbag", "turquoise shoes", "standing"))
    assert "smil" not in text
    assert "eyes" not in text
    assert "t-shirt" not in all_words(ADULT, worn, Shot(), "portrait")
    assert "t-shirt" in all_words(ADULT, worn, Shot(), "bust")
    assert "t-shirt" in all_words(ADULT, worn, Shot(), "portrait", visible=SEEN)


def test_an_ear_tells_little():
    found = facts(ADULT, Look(glasses=Glasses()), Shot(head={"yaw": 80}), "ear", SEEN)
    assert found["ear_side"] == "right"
    assert not found.keys() & {
        "age_group",
        "gender",
        "glasses",
        "expression",
        "head",
        "background",
        "hat",
        "hair_style",
    }
    assert facts(ADULT, Look(), Shot(head={"yaw": -80}), "ear")["ear_side"] == "left"


def test_a_mask_hides_mouth_and_beard():
    worn = Look(mask="light blue", beard={"style": "full", "length_m": 0.03}, makeup={"lipstick": "red"})
    taken = Shot(expression=expression("smile"))
    found = facts(ADULT, worn, taken, "portrait", SEEN)
    assert found["mask_color"] == "light blue"
    assert not found.keys() & {"beard", "lipstick", "expression"}
    bare = facts(ADULT, worn.replace(mask=None), taken, "portrait", SEEN)
    assert (bare["beard"], bare["lipstick"], bare["expression"]) == ("full", "red", "smile")
    winking = facts(ADULT, worn, Shot(expression=expression("wink")), "portrait", SEEN)
    assert winking["expression"] == "wink"


def test_sunglasses_hide_the_eyes():
    worn = Look(glasses=Glasses("sunglasses", tint=0.9))
    taken = Shot(expression=expression("closed_eyes"), head={"yaw": 20}, gaze={"yaw": -20})
    found = facts(ADULT, worn, taken, "portrait", SEEN)
    assert found["glasses"] == "sunglasses"
    assert not found.keys() & {"eye_color", "gaze", "expression", "eye_shadow"}
    assert facts(ADULT, worn, Shot(expression=expression("smile")), "portrait")["expression"] == "smile"
    clear = facts(ADULT, worn.replace(**{"glasses.tint": 0.0}), Shot(), "portrait")
    assert clear["glasses"] == "clear"
    assert clear["eye_color"] == "brown"


def test_closed_eyes_have_no_color():
    found = facts(ADULT, Look(), Shot(expression=expression("closed_eyes")), "portrait", SEEN | {"eyes": 0.0})
    assert found["expression"] == "closed_eyes"
    assert "eye_color" not in found


@pytest.mark.parametrize("kind", ["cap", "beanie", "brim", "headscarf", "helmet"])
def test_hats_hide_the_hair_style(kind):
    short = facts(ADULT, Look(hat=Hat(kind)), Shot(), "portrait")
    assert not short.keys() & {"hair_color", "hair_style", "hair_length"}
    bald = facts(ADULT, Look(hat=Hat(kind), hair={"style": "bald"}), Shot(), "portrait")
    assert "hair_style" not in bald
    tufts = facts(ADULT, Look(hat=Hat(kind)), Shot(), "portrait", SEEN)
    assert tufts["hair_color"] == "brown"
    assert "hair_style" not in tufts


def test_bald_heads_have_no_hair_color():
    found = facts(ADULT, Look(hair={"style": "bald"}), Shot(), "portrait", SEEN)
    assert found["hair_style"] == "bald"
    assert "hair_color" not in found
    assert "bald head" in all_words(ADULT, Look(hair={"style": "bald"}), Shot(), "portrait")


def test_from_behind_there_is_no_face():
    taken = Shot(camera={"azimuth_deg": 180})
    worn = Look(glasses=Glasses("sunglasses", tint=0.9), mask="white", beard={"style": "full"})
    found = facts(ADULT, worn, taken, "person", SEEN)
    assert found["view"] == "back"
    assert not found.keys() & {"glasses", "beard", "mask_color", "age_group", "expression"}
    assert "facing away from the camera" in all_words(ADULT, worn, taken, "person")
    bust = facts(ADULT, worn, taken, "bust", SEEN)
    assert bust["head"] == "seen from behind"
    assert not bust.keys() & {"glasses", "beard", "mask_color", "age_group", "expression", "lipstick"}


def test_what_the_segmentation_lacks_is_not_said():
    worn = Look(
        hat=Hat("cap", "orange"), glasses=Glasses("round"), scarf="green", outer=Garment("coat", "navy"), mask="white"
    )
    taken = shot(0, fix={"occluder.kind": "cup", "occluder.color": "red"})
    for framing in FRAMINGS:
        assert not facts(ADULT, worn, taken, framing, set()).keys() & {
            "hat",
            "glasses",
            "scarf_color",
            "coat",
            "top",
            "mask_color",
            "skin_tone",
            "hair_color",
            "occluder",
            "background",
            "expression",
            "beard",
        }
    some = facts(ADULT, worn, taken, "bust", {"hat": 0.05, "glasses": 0.0001, "coat": 0.2, "occluder": 0.03})
    assert some["hat"] == "cap"
    assert some["coat"] == "coat"
    assert (some["occluder"], some["occluder_color"]) == ("cup", "red")
    assert not some.keys() & {"glasses", "top", "scarf_color"}
    assert "partly hidden by a red cup" in all_words(ADULT, worn, taken, "bust", visible={"occluder"})


def test_an_occluder_at_an_unknown_place_may_hide_anything_small():
    taken = Shot(expression=expression("smile"), occluder={"kind": "hand"})
    assert not facts(ADULT, Look(), taken, "portrait").keys() & {"expression", "eye_color", "occluder"}


def test_a_closed_coat_hides_what_is_below_unless_it_is_seen():
    worn = Look(outer=Garment("coat", "navy", length=0.9))
    assert not facts(ADULT, worn, Shot(), "person").keys() & {"top", "bottom"}
    assert "a navy coat over a white t-shirt" in all_words(ADULT, worn, Shot(), "person", visible=SEEN)
    vest = worn.replace(outer=Garment("vest", "red", length=0.1))
    assert "a red vest over a white t-shirt" in all_words(ADULT, vest, Shot(), "bust")


def test_a_dress_takes_the_place_of_top_and_bottom():
    worn = Look(dress=Garment("dress", "red", length=0.9))
    found = facts(ADULT, worn, Shot(), "person", SEEN)
    assert (found["dress"], found["dress_color"], found["dress_length"]) == ("dress", "red", "long")
    assert not found.keys() & {"top", "bottom"}
    assert "dress" not in all_words(ADULT, worn, Shot(), "bust")
    assert "a red top" in all_words(ADULT, worn, Shot(), "bust")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("stripes", "a blue and white striped shirt"),
        ("checks", "a blue and white checked shirt"),
        ("dots", "a blue shirt with white dots"),
        ("print", "a patterned blue shirt"),
    ],
)
def test_patterns(pattern, words):
    top = Garment("shirt", "blue", "white", pattern=pattern, scale_m=0.05)
    assert words in all_words(ADULT, Look(top=top), Shot(), "bust")
    assert words in all_words(ADULT, Look(top=top), Shot(), "person")
    fine = top.replace(scale_m=0.02)
    assert "a shirt" in all_words(ADULT, Look(top=fine), Shot(), "person")


def test_black_and_white_pictures_have_no_colors():
    worn = Look(hat=Hat("cap", "orange"), glasses=Glasses("round"), top=Garment("shirt", "red", pattern="stripes"))
    taken = Shot(degrade={"saturation": 0}).replace(**{"background.kind": "wall", "light.temperature_k": 3000})
    text = all_words(ADULT, worn, taken, "bust", visible=SEEN)
    assert "black-and-white" in text
    assert "a cap" in text
    assert "a striped shirt" in text
    assert "in front of a wall" in text
    for word in ("orange", "red", "brown", "gray", "skin", "warm"):
        assert word not in re.findall(r"[a-z]+", text)


@pytest.mark.parametrize(
    ("yaw", "azimuth", "says"),
    [
        (0, 0, "facing the camera"),
        (15, 0, "turned slightly to the right"),
        (-40, 0, "turned to the left"),
        (0, 40, "turned to the left"),
        (40, 40, "facing the camera"),
        (80, 0, "shown in profile facing right"),
        (0, 180, "seen from behind"),
    ],
)
def test_the_head_turns_in_the_image(yaw, azimuth, says):
    taken = Shot(head={"yaw": yaw}, camera={"azimuth_deg": azimuth})
    assert facts(ADULT, Look(), taken, "bust")["head"] == says


def test_gaze():
    def gaze(yaw, eyes):
        return facts(ADULT, Look(), Shot(head={"yaw": yaw}, gaze={"yaw": eyes}), "portrait").get("gaze")

    assert gaze(20, -20) == "at the camera"
    assert gaze(0, 0) is None
    assert gaze(0, 25) == "to the right"
    assert gaze(-10, -20) == "to the left"
    assert gaze(30, -16) is None


def test_tilt_and_pitch():
    text = all_words(ADULT, Look(), Shot(head={"roll": 20, "pitch": -25}), "bust")
    assert "tilting his head to the right" in text
    assert "lowering his head" in text
    # An aligned portrait has no tilt; a camera from below raises the head.
    found = facts(ADULT, Look(), Shot(head={"roll": 20}, camera={"elevation_deg": -25}), "portrait")
    assert "head_tilt" not in found
    assert found["head_pitch"] == "raised"


def test_light():
    def light(**changes):
        found = facts(ADULT, Look(), Shot().replace(**{f"light.{k}": v for k, v in changes.items()}), "portrait")
        return found.get("light_side"), found.get("light_tone")

    assert light(key_azimuth_deg=70, key=1.0) == ("right", None)
    assert light(key_azimuth_deg=-70, key=1.0) == ("left", None)
    assert light(key_azimuth_deg=5) == (None, None)
    assert light(key_azimuth_deg=70, key=0.3, ambient=0.9) == (None, None)
    assert light(key_azimuth_deg=170, key=1.2) == ("behind", None)
    assert light(key_azimuth_deg=5, temperature_k=2800) == (None, "warm")
    assert light(key_azimuth_deg=5, temperature_k=9000) == (None, "cool")


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_are_recognized_by_their_actions(name):
    assert shown_expression(Shot(mood=name, expression=expression(name))) == name


def test_an_expression_that_is_not_there_is_not_told():
    assert shown_expression(Shot(mood="smile")) == "neutral"
    assert shown_expression(Shot(mood="custom", expression={"mouthLeft": 1.0})) is None
    assert shown_expression(Shot(expression=expression("smile"))) == "smile"
    sampled = [shot(n) for n in range(100)]
    assert all(shown_expression(s) == s.mood for s in sampled)


@pytest.mark.parametrize(
    ("age", "gender", "words"),
    [
        (8, 0.0, "girl"),
        (8, 1.0, "boy"),
        (8, 0.5, "child"),
        (16, 0.0, "teenage girl"),
        (25, 1.0, "young man"),
        (50, 0.0, "middle-aged woman"),
        (75, 1.0, "elderly man"),
        (75, 0.5, "elderly person"),
    ],
)
def test_who_it_is(age, gender, words):
    assert words in all_words(Person(age=age, gender=gender), Look(), Shot(), "portrait")


@pytest.mark.parametrize(
    ("azimuth", "pose", "words"),
    [
        (0, "walking", "walking toward the camera"),
        (180, "walking", "walking away from the camera"),
        (90, "walking", "walking to the left"),
        (-90, "standing", "facing right"),
        (0, "arms_crossed", "standing with arms crossed"),
        (45, "sitting", "sitting"),
    ],
)
def test_poses(azimuth, pose, words):
    taken = Shot(pose={"name": pose}, camera={"azimuth_deg": azimuth})
    assert words in all_words(ADULT, Look(), taken, "person")


def test_gray_and_dyed_hair():
    old = Person(age=70).replace(**{"hair.gray": 0.95})
    assert "white hair" in all_words(old, Look(), Shot(), "portrait")
    assert "short pink hair" in all_words(old, Look(hair={"color": "pink"}), Shot(), "portrait")
    assert "a pink buzz cut" in all_words(old, Look(hair={"style": "buzz", "color": "pink"}), Shot(), "portrait")
    assert "hair tied back" in all_words(old, Look(hair={"style": "tied"}), Shot(), "portrait")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: facts(ADULT, Look(), Shot(), "selfie"), ["'selfie'", "portrait"]),
        (lambda: facts(ADULT, Look(), Shot(), "bust", {"nose"}), ["'nose'", "face"]),
        (lambda: captions(ADULT, Look(), Shot(), "bust", n=0), ["0", "at least 1"]),
    ],
)
def test_errors(make, says):
    with pytest.raises(WorldError) as caught:
        make()
    for word in says:
        assert word in str(caught.value)


def test_words():
    assert [article(word) for word in ("orange hat", "red hat", "Olive tree")] == [
        "an orange hat",
        "a red hat",
        "an Olive tree",
    ]
    assert [join(list("abc"[:n])) for n in range(4)] == ["", "a", "a and b", "a, b, and c"]


def test_the_words_for_somebody_are_those_of_captions():
    assert subject({"age_group": "elder", "gender": "female"}) == "an elderly woman"
    assert subject({"gender": "male", "hat": "cap"}) == "a man" and subject({}) == "a person"
    with pytest.raises(WorldError, match="Nobody is old and female"):
        subject({"age_group": "old", "gender": "female"})
